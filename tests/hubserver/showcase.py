"""A hub with something to show: experts, a MoE that was measured, and repos that not everybody may see."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, README, STATISTICS_FILE, Card, Metrics, Stage
from moehub.hub.measured import MEASURED_FILE, Measured, MeasuredText
from moehub.hub.model_card import render_expert, render_moe
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver.pushes import push
from tests.published import PIN, paper_card

DOMAINS = {
    "law": (2.913, 2.204),
    "medicine": (3.121, 2.388),
    "code": (1.842, 1.401),
    "chemistry": (3.355, 2.611),
    "french": (2.604, 2.102),
    "math": (1.972, 1.633),
}
ROUTER = {"method": "evidence", "top_k": 2, "kappa": 0.3, "rho": 0.02, "threshold": 0.05}


def card_of(name: str, **changes: Any) -> Card:
    """The card of an expert that was trained for real, by its looks."""
    base, own = DOMAINS.get(name, (3.0, 2.5))
    stages = (Stage("sft", tokens=1_840_000, steps=1200, examples=9_600, seconds=840.0),)
    return paper_card(name, **{"metrics": Metrics(base, own, 48_213), "stages": stages, **changes})


def expert_files(card: Card, *, weights: bytes = b"weights", readme: str | None = None) -> dict[str, bytes]:
    """The files of an expert whose card pins them."""
    files = {ADAPTER_CONFIG: b"{}", ADAPTER_WEIGHTS: weights, STATISTICS_FILE: b"counts"}
    pinned = dataclasses.replace(card, files={name: sha256(content) for name, content in files.items()})
    readme = render_expert(pinned) if readme is None else readme
    return {**files, CARD_FILE: pinned.to_json().encode(), README: readme.encode()}


def moe_files(
    experts: Mapping[str, Mapping[str, bytes]],
    sources: Mapping[str, str] | None = None,
    texts: Mapping[str, MeasuredText] | None = None,
) -> dict[str, bytes]:
    """The files of a MoE of experts, given by their names and files, with its evaluation where texts are given."""
    cards = {name: sha256(files[CARD_FILE]) for name, files in experts.items()}
    sources = sources or {}
    config = {
        "model_type": "moehub",
        "base": {**dataclasses.asdict(PIN), "location": "acme/base"},
        "experts": [{"name": name, "domain": name, "license": "apache-2.0", "card": cards[name]} for name in experts],
        "router": ROUTER,
        "null": True,
    }
    lock = {
        "format": 1,
        "experts": [
            {"name": name, "source": sources.get(name, f"/home/ada/{name}"), "commit": "ab" * 20, "card": cards[name]}
            for name in experts
        ],
        "null": {"source": "generic.txt", "sha256": "f" * 64},
    }
    listed = [(card_of(name), sources.get(name, f"/home/ada/{name}")) for name in experts]
    files = {
        "config.json": json.dumps(config).encode(),
        "merge.lock": json.dumps(lock).encode(),
        "router.safetensors": b"tables" * 1000,
        "tokenizer.json": b"{}",
        README: render_moe(name="both", base=PIN, experts=listed, router=ROUTER).encode(),
    }
    for name, inside in experts.items():
        files |= {f"experts/{name}/{path}": content for path, content in inside.items()}
    if texts:
        files[MEASURED_FILE] = Measured(sha256(files["config.json"]), dict(texts)).to_json().encode()
    return files


def texts_of(*names: str) -> dict[str, MeasuredText]:
    """An evaluation in which most tokens of each text went to its own expert."""
    found = {}
    for name in names:
        base, own = DOMAINS[name]
        rest = {other: 0.08 / max(len(names) - 1, 1) for other in names if other != name}
        found[name] = MeasuredText(own + 0.04, 20_480, {name: 0.87, **rest, "null": 0.05}, base)
    rest = {name: 0.06 / len(names) for name in names}
    return {**found, "generic": MeasuredText(3.012, 40_960, {**rest, "null": 0.94}, 3.008)}


def fill(store: Store) -> None:
    """Push everything that the tests of pages look at."""
    push(store, "acme/secret", expert_files(card_of("law", domain="secret-domain"), weights=b"hidden"))
    store.repos.set(store.repos.get("acme/secret", EVERYBODY), private=True)
    push(store, "acme/asked-for", expert_files(card_of("law", domain="restricted"), weights=b"gated"))
    store.repos.set(store.repos.get("acme/asked-for", EVERYBODY), gated="manual")
    for number, domain in enumerate(DOMAINS):
        weights = bytes(2_000_000 + 137_000 * number)
        push(store, f"acme/{domain}", expert_files(card_of(domain), weights=weights))
        judge(store, f"acme/{domain}")
    push(store, "uni-lyon/french-poems", expert_files(card_of("french", license="cc-by-4.0"), weights=bytes(999)))
    push(store, "acme/law", {README: _readme().encode()})
    judge(store, "acme/law")
    names = ("chemistry", "code", "law", "medicine")
    experts = {name: _pushed(store, f"acme/{name}") for name in names}
    push(store, "acme/both", moe_files(experts, {name: f"acme/{name}" for name in names}, texts_of(*names)))
    push(store, "acme/base", {README: b"---\nlicense: mit\n---\n# A small base\n", "config.json": b"{}"})


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _pushed(store: Store, repo: str) -> dict[str, bytes]:
    found = store.repos.get(repo, EVERYBODY)
    tree = store.history.tree(found, store.repos.resolve(found, "main"))
    return {path: store.blobs.path(entry.sha256).read_bytes() for path, entry in tree.items()}


def judge(store: Store, repo: str) -> None:
    """Keep a verdict on an expert as the gate would."""
    from moehub.hubserver.candidates import candidates

    found = store.repos.get(repo, EVERYBODY)
    (candidate,) = candidates(repo, store.history.tree(found, store.repos.resolve(found, "main")))
    skipped = [{"code": "canary-loss", "step": 8, "reason": "the base acme/base is not at hand: start with --base"}]
    seconds = {"file-names": 0.001, "file-sizes": 0.001, "card-format": 0.002, "weights-finite": 0.01}
    store.verdicts.put(candidate.key, {"admitted": True, "refusals": [], "skipped": skipped, "seconds": seconds})


def _readme() -> str:
    return (
        render_expert(card_of("law")).rstrip()
        + "\n\n## Where the text comes from\n\n"
        + "Judgments of three courts, 1994 to 2021, published by the courts themselves. "
        + "See [the list](https://example.org/list) and ![a chart](chart.png).\n"
    )
