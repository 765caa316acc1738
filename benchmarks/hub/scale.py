"""Lists and searches among many experts, through HTTP.

    python -m benchmarks.hub scale [--experts 10000] [--requests 300] [--write]

The experts are put into the store directly, with small weights and true model cards; then a server of its own answers
requests one after another over one connection, with words, bases and authors drawn at random.
"""

import argparse
import contextlib
import dataclasses
import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx2

from benchmarks.hub import clients, present, servers, where
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, README, BasePin, Card, Metrics, Stage
from moehub.console import progress
from moehub.hub.model_card import EXPERT_TAG, render_expert
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.visitor import EVERYBODY

_COLUMNS = ("request", "p50, ms", "p99, ms", "kB")
_BASES, _AUTHORS = 20, 50
_DOMAINS = ("law", "medicine", "finance", "python", "cpp", "math", "poetry", "news", "chemistry", "history")
_LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "other")
_WEIGHTS = b"\x40" + bytes(7) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(64) + bytes(4)
Ask = Callable[[random.Random], str]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table; `--write` puts it into RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    options = parser.parse_args(arguments)
    machine = where()
    with _filled(options.experts) as root, servers.hub(root) as served:
        before = served.memory()
        rows = measure(served.url, options.experts, options.requests)
        memory = (
            f"The server's peak memory: {before / 1e6:.0f} MB at the start, {served.memory() / 1e6:.0f} MB at the end."
        )
    how = (
        f"`python -m benchmarks.hub scale --write`: {options.experts} experts of {_BASES} bases by {_AUTHORS} "
        f"authors, {options.requests} requests of each kind, one after another. kB: of one answer, the median."
    )
    present("The hub: many experts", _COLUMNS, rows, how=how, machine=machine, write=options.write, below=memory)


@contextlib.contextmanager
def _filled(experts: int) -> Iterator[Path]:
    """Yield the root of a hub with experts; it is filled in memory, where the system can, and moved to the disk."""
    memory = Path("/dev/shm")  # noqa: S108 (a new folder in it)
    with (
        tempfile.TemporaryDirectory() as place,
        tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as quick,
        progress("publishing experts", experts) as advance,
    ):
        store = open_store(Path(quick) / "hub", create=True)
        for number in range(experts):
            _publish(store, number)
            advance()
        store.database.close()
        yield shutil.copytree(Path(quick) / "hub", Path(place) / "hub", copy_function=shutil.copyfile)


def _publish(store: Store, number: int) -> None:
    repo = store.repos.create(_name(number), EVERYBODY)
    card = _card(number)
    contents = {
        CARD_FILE: card.to_json().encode(),
        README: render_expert(card).encode(),
        ADAPTER_CONFIG: json.dumps({"base_model_name_or_path": card.base.reference}).encode(),
        ADAPTER_WEIGHTS: _WEIGHTS,
    }
    blobs = {name: store.uploads.take_bytes(content, repo.number) for name, content in contents.items()}
    files = {name: trees.large(blob.sha256, blob.size) for name, blob in blobs.items()}
    store.history.commit(repo, "main", Change(files), title="Push", author=repo.namespace)


def _name(number: int) -> str:
    return f"author-{number % _AUTHORS}/{_DOMAINS[number % len(_DOMAINS)]}-{number}"


def _last(number: int) -> str:
    return _name(number).partition("/")[2]


def _card(number: int) -> Card:
    base = number // len(_DOMAINS) % _BASES  # every domain on every base
    card = Card(
        name=_last(number),
        domain=_DOMAINS[number % len(_DOMAINS)],
        base=BasePin(f"bases/base-{base}", f"{base:064x}", "0" * 64, None),
        rank=8,
        alpha=16,
        targets=("q_proj", "v_proj"),
        license=_LICENSES[number % len(_LICENSES)],
        stages=(Stage("sft", tokens=100_000, steps=100, examples=1000, seconds=10.0),),
        metrics=Metrics(base_loss=3.0, expert_loss=2.5, tokens=10_000),
        files={},
    )
    return dataclasses.replace(card, files={ADAPTER_CONFIG: "0" * 64, ADAPTER_WEIGHTS: "0" * 64})


def _asks(experts: int) -> dict[str, Ask]:
    """Return what is asked: words for people → path and query, with a chance."""
    return {
        "API: newest 100": lambda _: "/api/models?limit=100",
        "API: experts of a base, 100": lambda chance: (
            f"/api/models?filter=base_model:adapter:bases/base-{chance.randrange(_BASES)}&limit=100"
        ),
        "API: experts of a base and a domain, full, 100": lambda chance: (
            f"/api/models?filter=base_model:adapter:bases/base-{chance.randrange(_BASES)}"
            f"&filter=domain:{chance.choice(_DOMAINS)}&full=True&cardData=True&limit=100"
        ),
        "API: search for one repo": lambda chance: f"/api/models?search={_last(_some(chance, experts))}",
        "API: search for nothing that is there": lambda chance: f"/api/models?search=missing{chance.random()}",
        "API: of one author, 100": lambda chance: f"/api/models?author=author-{chance.randrange(_AUTHORS)}&limit=100",
        "API: one repo": lambda chance: f"/api/models/{_name(_some(chance, experts))}",
        "page: newest": lambda _: "/",
        "page: experts of a base": lambda chance: f"/?base=bases/base-{chance.randrange(_BASES)}",
        "page: search": lambda chance: f"/?search={_last(_some(chance, experts))}",
        "page: one expert": lambda chance: f"/{_name(_some(chance, experts))}",
        "page: one author": lambda chance: f"/author-{chance.randrange(_AUTHORS)}",
    }


def _some(chance: random.Random, experts: int) -> int:
    return chance.randrange(experts)


def measure(url: str, experts: int, requests: int) -> list[tuple[str, ...]]:
    """Return the rows of the table."""
    chance, asks = random.Random(0), _asks(experts)  # noqa: S311 (nothing secret)
    rows: list[tuple[str, ...]] = []
    with clients.session() as session, progress("asking", len(asks) + 1) as advance:
        for what, ask in asks.items():
            for _ in range(3):
                _asked(session, url + ask(chance))
            found = [_asked(session, url + ask(chance)) for _ in range(requests)]
            milliseconds = [seconds * 1000 for seconds, _ in found]
            tail = statistics.quantiles(milliseconds, n=100)[98] if requests > 1 else milliseconds[0]
            size = statistics.median(size for _, size in found) / 1000
            rows.append((what, f"{statistics.median(milliseconds):.1f}", f"{tail:.1f}", f"{size:.1f}"))
            advance(1, what)
        rows.append(_all_of_them(url, experts))
        advance(1)
    return rows


def _asked(session: httpx2.Client, address: str) -> tuple[float, int]:
    """Return the seconds and bytes of an answer."""
    started = time.perf_counter()
    answer = session.get(address)
    seconds = time.perf_counter() - started
    if answer.status_code != 200:
        raise SystemExit(f"{address} was answered with {answer.status_code}, expected 200: {answer.text[:300]}")
    return seconds, len(answer.content)


def _all_of_them(url: str, experts: int) -> tuple[str, ...]:
    """Return the row of a client that lists every expert, page by page."""
    from huggingface_hub import HfApi

    started = time.perf_counter()
    found = list(HfApi(url, token=False).list_models(filter=EXPERT_TAG, full=True, cardData=True))
    seconds = time.perf_counter() - started
    if len(found) != experts:
        raise SystemExit(f"the client listed {len(found)} experts, expected {experts}: see what the hub logs")
    return f"client: all {experts}, full", f"{seconds * 1000:.0f}", "", ""


if __name__ == "__main__":
    main()
