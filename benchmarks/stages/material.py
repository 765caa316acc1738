"""Questions with their answers → what each stage learns from; no question is in two of them, nor in what is held out.

Preferences need nobody who judges: the chosen answer is the one that a person gave, the rejected one is what the
fine-tuned model says itself.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
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
    """Write a file for each of `SHARES` (that of `pretrain` as text; of `preferences` what was chosen alone).

    Returns:
        How many questions each has.
    """
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
    short = [one for one in parts["preferences"] if len(one.answer) <= _LONGEST]
    _records(folder / "chosen.jsonl", ({"instruction": one.question, "chosen": one.answer} for one in short))
    _records(folder / "prompts.jsonl", ({"instruction": one.question} for one in parts["prompts"]))
    return {name: len(part) for name, part in parts.items()}


def reject(chosen: Path, answer: Callable[[Sequence[str]], list[str]], output: Path) -> None:
    """Write preferences: those of the file `chosen`, each beside what `answer` makes of the question."""
    records = [json.loads(line) for line in chosen.read_text(encoding="utf-8").splitlines()]
    said = answer([record["instruction"] for record in records])
    pairs = [
        {**record, "rejected": text}
        for record, text in zip(records, said, strict=True)
        if text.strip() and text != record["chosen"]
    ]
    _records(output, iter(pairs))


def _records(file: Path, records: Iterator[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
