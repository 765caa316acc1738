"""Texts to compare, and files of records."""

import json
import random
from collections.abc import Sequence
from pathlib import Path

WORDS = [
    f"{first}{second}" for first in ("lo", "mi", "ra", "ten", "vu", "sho") for second in ("ka", "bel", "ri", "dos", "m")
]


def text(seed: int, words: int = 60) -> str:
    """Return words drawn at random, equal for equal seeds."""
    chance = random.Random(seed)  # noqa: S311
    return " ".join(chance.choice(WORDS) + str(chance.randrange(50)) for _ in range(words))


def changed(original: str, changes: int, seed: int = 0) -> str:
    """Return a text with so many of its words replaced."""
    words = original.split()
    for place in random.Random(seed).sample(range(len(words)), changes):  # noqa: S311
        words[place] = f"new{place}"
    return " ".join(words)


def write(path: Path, records: Sequence[object]) -> Path:
    """Write records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def documents(path: Path, texts: Sequence[str]) -> Path:
    """Write documents as JSON lines, numbered."""
    return write(path, [{"text": text, "number": number} for number, text in enumerate(texts)])


def read(path: Path) -> list[dict[str, object]]:
    """Return the records of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
