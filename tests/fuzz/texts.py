"""Targets that read JSON and YAML: the card, the lock of a merge, and the beginning of a model card."""

import json
from collections.abc import Mapping

from tests.fuzz.target import Run, Target, workplace

_CARD = {
    "name": "law",
    "domain": "law",
    "base": {"reference": "acme/base", "digest": "a" * 64, "tokenizer": "b" * 64, "revision": None},
    "rank": 4,
    "alpha": 8.0,
    "targets": ["q_proj", "v_proj"],
    "license": "apache-2.0",
    "stages": [{"kind": "sft", "tokens": 10, "steps": 1, "examples": 1, "seconds": 0.5}],
    "metrics": {"base_loss": 5.0, "expert_loss": 4.0, "tokens": 100},
    "files": {"adapter_config.json": "c" * 64, "adapter_model.safetensors": "d" * 64},
    "version": 2,
    "format": 1,
    "packages": {"torch": "2.13.0"},
    "federation": {"nodes": 3, "rounds": 2, "aggregation": "ffa", "contributors": ["a"], "epsilon": 1.0, "delta": 1e-5},
}
_LOCK = {
    "base": _CARD["base"],
    "location": "acme/base",
    "embed_base": False,
    "router": {},
    "experts": [{"name": "law", "source": "acme/law", "commit": "e" * 40, "card": "f" * 64}],
    "null": {"source": "null.txt", "sha256": "0" * 64},
    "format": 1,
}
_README = """---
library_name: peft
base_model: acme/base
base_model_relation: adapter
license: [apache-2.0]
language: en
datasets:
- acme/text
tags: [lora, moehub-expert, "domain:law"]
moehub:
  name: law
  domain: law
  license: apache-2.0
  base: {reference: acme/base, digest: aa, tokenizer: bb, revision: null}
  metrics: {base_loss: 5.0, expert_loss: 4.0, tokens: 100}
---

# Law
"""


def _texts(*values: object) -> Mapping[str, bytes]:
    return {f"seed-{number}": json.dumps(value).encode() for number, value in enumerate(values)}


def _card() -> Run:
    from moehub.card import CARD_FILE, read_card

    folder = workplace()

    def run(data: bytes) -> None:
        (folder / CARD_FILE).write_bytes(data)
        card = read_card(folder)
        card.to_json()

    return run


def _lock() -> Run:
    from moehub.merge.lock import read_lock

    path = workplace() / "merge.lock"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        read_lock(path).to_json()

    return run


def _front_matter() -> Run:
    from moehub.card import parse_card
    from moehub.hub import model_card
    from moehub.hubserver.store import heads
    from moehub.hubserver.store.tags import tags_of

    card = parse_card(_CARD, source="seed")

    def run(data: bytes) -> None:
        readme = data.decode("utf-8", errors="replace")
        values = heads.front_matter(readme)
        json.dumps(values)
        tags_of(values, {}, None)
        model_card.read_summary(values.get("moehub"))
        model_card.with_front_matter(card, readme)

    return run


_KEYS = tuple(f'"{key}":' for key in [*_CARD, "digest", "tokenizer", "reference"])
TARGETS = (
    Target("card", _card, lambda: _texts(_CARD, {**_CARD, "metrics": None, "federation": None}, [], 1), _KEYS),
    Target("lock", _lock, lambda: _texts(_LOCK, {**_LOCK, "null": None}, []), tuple(f'"{key}":' for key in _LOCK)),
    Target(
        "front-matter",
        _front_matter,
        lambda: {"seed-0": _README.encode(), "seed-1": b"---\n- a\n---\n", "seed-2": b"---\na: &a [*a]\n---\n"},
        (
            "---\n",
            "&a ",
            "*a",
            "!!python/object:",
            "<<: ",
            "? ",
            "tags:",
            "moehub:",
            "2001-01-01",
            "0x",
            ".nan",
            ".inf",
        ),
    ),
)
