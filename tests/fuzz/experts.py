"""Targets that show the gate an expert of which one file is a stranger's; the card pins it, whatever it is."""

import dataclasses
import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, STATISTICS_FILE, read_card
from tests.fuzz.target import Run, Target, workplace


@cache
def _world() -> tuple[Path, Path]:
    """Return a base and an expert, made once."""
    from tests.builders import tiny_base, tiny_expert

    place = workplace()
    base = tiny_base(place / "base")
    return base, tiny_expert(place / "expert", base, targets=("q_proj",), rank=2)


def _gate(name: str, decode: Callable[[bytes], bytes] = bytes) -> Run:
    """Return what shows the gate the expert with one file replaced; `decode` makes the file of an input."""
    from moehub.admission.at_hand import AtHand
    from moehub.admission.gate import examine
    from moehub.base import Base

    base, expert = _world()
    at_hand = AtHand(
        pin=Base(base, base.name, None).pin(),
        base_config=json.loads((base / "config.json").read_text(encoding="utf-8")),
    )
    folder = workplace()
    for path in expert.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    card = read_card(expert)

    def run(data: bytes) -> None:
        content = decode(data)
        (folder / name).write_bytes(content)
        if name in card.files:
            pinned = {**card.files, name: hashlib.sha256(content).hexdigest()}
            (folder / CARD_FILE).write_text(dataclasses.replace(card, files=pinned).to_json(), encoding="utf-8")
        json.dumps(examine(folder, at_hand).to_dict())

    return run


def _framed(data: bytes) -> bytes:
    """Return a safetensors file: as it is if it begins with a zero, else a header of its true length and some bytes."""
    if data[:1] == b"\0":
        return data[1:]
    header, _, rest = data.partition(b"\xff\xff")
    return struct.pack("<Q", len(header)) + header + rest


def _seeds(name: str) -> Mapping[str, bytes]:
    content = (_world()[1] / name).read_bytes()
    if not name.endswith(".safetensors"):
        return {"seed-0": content}
    length = struct.unpack("<Q", content[:8])[0]
    return {
        "seed-0": b"\0" + content,
        "seed-1": content[8 : 8 + length] + b"\xff\xff" + content[8 + length :],
        "seed-2": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}\xff\xff\0\0\0\0',
        "seed-3": b'{"__metadata__": {"format": "pt"}}\xff\xff',
    }


def _target(name: str, file: str, words: tuple[str, ...], longest: int = 4096) -> Target:
    decode = _framed if file.endswith(".safetensors") else bytes
    return Target(name, partial(_gate, file, decode), partial(_seeds, file), words, longest)


_HEADER = (
    '"dtype":',
    '"shape":',
    '"data_offsets":',
    '"__metadata__":',
    '"F32"',
    '"BF16"',
    '"I64"',
    "[0, 4]",
    "\xff\xff",
)
TARGETS = (
    _target("gate-card", CARD_FILE, ('"files":', '"base":', '"targets":', '"rank":', "1e400", "NaN")),
    _target(
        "gate-config",
        ADAPTER_CONFIG,
        ('"auto_mapping":', '"target_modules":', '"r":', '"lora_alpha":', '"rank_pattern":', "null", "1e400", "NaN"),
    ),
    _target("gate-weights", ADAPTER_WEIGHTS, (*_HEADER, "lora_A.weight", "base_model.model."), 16384),
    _target("gate-statistics", STATISTICS_FILE, (*_HEADER, "unigrams.index", "pairs.count", "moehub"), 16384),
)
