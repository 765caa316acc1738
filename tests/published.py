"""Experts and MoEs made of paper: the right files under the right digests, with nothing a model could load.

Hubs carry folders without opening their tensors, so that is all their tests need.
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from moehub import files
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, STATISTICS_FILE, BasePin, Card, Metrics, Stage
from moehub.hub.model_card import render_moe

PIN = BasePin(reference="acme/base", digest="d" * 64, tokenizer="e" * 64, revision="c" * 40)


def paper_card(name: str = "law", **changes: object) -> Card:
    card = Card(
        name=name,
        domain=name,
        base=PIN,
        rank=8,
        alpha=16.0,
        targets=("q_proj", "v_proj"),
        license="apache-2.0",
        stages=(Stage("sft", tokens=1000, steps=10, examples=20, seconds=3.0),),
        metrics=Metrics(base_loss=5.0, expert_loss=4.0, tokens=100),
        files={},
    )
    return dataclasses.replace(card, **changes)  # type: ignore[arg-type]


def paper_expert(folder: Path, card: Card | None = None, *, weights: bytes = b"weights") -> Path:
    """Write an expert folder whose card pins its files."""
    card = card or paper_card(folder.name)
    contents = {ADAPTER_CONFIG: b"{}", ADAPTER_WEIGHTS: weights, STATISTICS_FILE: b"counts"}
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    pinned = {name: files.sha256(folder / name) for name in contents}
    (folder / CARD_FILE).write_text(dataclasses.replace(card, files=pinned).to_json(), encoding="utf-8")
    return folder


def paper_moe(
    folder: Path, names: Sequence[str] = ("code", "law"), *, location: str = "acme/base", source: str = "acme/law"
) -> Path:
    """Write a MoE folder as `moehub merge` lays it out."""
    for name in names:
        paper_expert(folder / "experts" / name)
    cards = {name: files.sha256(folder / "experts" / name / CARD_FILE) for name in names}
    config = {
        "model_type": "moehub",
        "base": {**dataclasses.asdict(PIN), "location": location},
        "experts": [{"name": name, "domain": name, "license": "apache-2.0", "card": cards[name]} for name in names],
        "router": {"method": "evidence", "top_k": 2},
        "null": False,
    }
    lock = {"experts": [{"name": name, "source": source, "commit": None, "card": cards[name]} for name in names]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "merge.lock").write_text(json.dumps(lock), encoding="utf-8")
    (folder / "router.safetensors").write_bytes(b"tables")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    readme = render_moe(name="both", base=PIN, experts=[(paper_card(name), source) for name in names], router={})
    (folder / "README.md").write_text(readme, encoding="utf-8")
    return folder
