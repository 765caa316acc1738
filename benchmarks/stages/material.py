"""Questions with their answers → what each stage learns from; no question is in two of them, nor in what is held out.

Preferences need no person here: the chosen answer is the one that belongs to the question, the rejected one belongs to
another question about as long.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHARES = {"pretrain": 0.4, "sft": 0.25, "preferences": 0.2, "prompts": 0.15}
"""Of the questions."""
_LONGEST = 400
"""Characters of an answer in preferences: both have to fit into a context."""


@dataclass(frozen=True)
class Question:
    """One question with its answer."""

    question: str
    answer: str


def read(file: Path) -> list[Question]:
    """Return the questions of a file of Alpaca or prompt/completion records."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        question = record.get("input") or record.get("instruction") or record.get("prompt")
        answer = record.get("output") or record.get("completion")
        if question and answer:
            found.append(Question(question.strip(), answer.strip()))
    return found


def write(questions: Sequence[Question], folder: Path, *, seed: int) -> dict[str, int]:
    """Write a file for each of `SHARES` (that of `pretrain` as text), and return how many questions each has."""
    drawn = list(questions)
    random.Random(seed).shuffle(drawn)  # noqa: S311 (a split, no secret)
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, list[Question]] = {}
    begin = 0
    for name, share in SHARES.items():
        end = begin + int(share * len(drawn))
        parts[name], begin = drawn[begin:end], end
    texts = [f"{one.question}\n\n{one.answer}" for one in parts["pretrain"]]
    (folder / "pretrain.txt").write_text("<|endoftext|>".join(texts), encoding="utf-8")
    _records(folder / "sft.jsonl", ({"instruction": one.question, "output": one.answer} for one in parts["sft"]))
    _records(folder / "preferences.jsonl", _preferences(parts["preferences"]))
    _records(folder / "prompts.jsonl", ({"instruction": one.question} for one in parts["prompts"]))
    return {name: len(part) for name, part in parts.items()}


def _preferences(part: Sequence[Question]) -> Iterator[dict[str, Any]]:
    short = sorted((one for one in part if len(one.answer) <= _LONGEST), key=lambda one: len(one.answer))
    for mine, other in zip(short, [*short[1:], *short[:1]], strict=True):
        if mine.question != other.question and mine.answer != other.answer:
            yield {"instruction": mine.question, "chosen": mine.answer, "rejected": other.answer}


def _records(file: Path, records: Iterator[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
