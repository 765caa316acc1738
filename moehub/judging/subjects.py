"""What is judged: single answers, or pairs of answers, read from files.

| fields                                                    | what it is                                           |
|-----------------------------------------------------------|------------------------------------------------------|
| a prompt, `completion` or `output`; or `messages`         | one answer: the last of the assistant's              |
| a prompt, `chosen`, `rejected`; or the two alone          | two answers; a is the chosen one, which is its label |
| a prompt, `a`, `b`                                        | two answers                                          |

A prompt is `prompt`, `instruction` [, `input`] or `messages`, as in `moehub.experts.data`. `label` is what is known to
be right: of one answer true or false (or 1, 0, yes, no), of two `a`, `b` or `tie`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from moehub.chat import Prompt
from moehub.errors import DataError, listed
from moehub.experts import data, records
from moehub.experts.examples import Conversation
from moehub.experts.records import Record
from moehub.judging import prompts

_MOST_FAULTS = 10
_LABELS: Mapping[Any, str] = {True: "yes", False: "no", "yes": "yes", "no": "no", "true": "yes", "false": "no"}
_WINNERS = frozenset({"a", "b", "tie"})


@dataclass(frozen=True)
class Single:
    """One answer."""

    prompt: Prompt
    answer: str
    label: str | None
    """`yes` or `no`; None where nothing is known."""
    record: Mapping[str, Any]
    """Where it came from, whole."""


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt."""

    prompt: Prompt
    a: str
    b: str
    label: str | None
    """`a`, `b` or `tie`; None where nothing is known."""
    record: Mapping[str, Any]


Subject: TypeAlias = Single | Pair


def read(sources: Sequence[Path]) -> list[Subject]:
    """Return the answers in files, in order: all of them single, or all of them pairs.

    Raises:
        DataError: a file cannot be read, holds records without answers, or holds both kinds.
    """
    found: list[Subject] = []
    faults: list[str] = []
    for record in (one for file in records.read(sources) for one in file):
        try:
            found.append(subject_of(record))
        except DataError as error:
            faults.append(f"{record.origin} {error}")
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        summary = f"{len(faults)} record(s) cannot be judged; correct or remove them:"
        raise DataError(listed(summary, [*faults[:_MOST_FAULTS], *more]))
    singles = [one for one in found if isinstance(one, Single)]
    pairs = [one for one in found if isinstance(one, Pair)]
    if not found:
        raise DataError(f"there is nothing to judge in {', '.join(map(str, sources))}: expected at least one answer")
    if singles and pairs:
        raise DataError(
            f"there are {len(singles)} single answers and {len(pairs)} pairs, which are judged by different questions: "
            "put them into files of their own and judge these apart"
        )
    return found


def subject_of(record: Record) -> Subject:
    """Return the answer or the two that a record holds.

    Raises:
        DataError: it holds none; the sentence goes on from the record's place.
    """
    if isinstance(record.value, dict) and record.value.get("chosen") is not None:
        chosen = data.preference_of(record)
        return Pair(chosen.prompt, chosen.chosen, chosen.rejected, "a", record.value)
    task = data.task_of(record)
    if {"a", "b"} <= task.fields.keys():
        a, b = (_answer(task.fields, name) for name in ("a", "b"))
        return Pair(task.prompt, a, b, _winner(task.fields.get("label")), record.value)
    return Single(task.prompt, _single(record, task.fields), _label(task.fields.get("label")), record.value)


def digest(subject: Subject) -> str:
    """Return the sha256 of what is judged, in hex: the prompt and its answers, whatever else the record says."""
    answers = [subject.answer] if isinstance(subject, Single) else [subject.a, subject.b]
    return prompts.digest(subject.prompt, *answers)


def _single(record: Record, fields: Mapping[str, Any]) -> str:
    for name in ("completion", "output"):
        if fields.get(name) is not None:
            return _answer(fields, name)
    if "messages" not in record.value:
        raise DataError("has no answer: expected completion, output, messages, chosen and rejected, or a and b")
    example = data.example_of(record)
    last = example.messages[-1] if isinstance(example, Conversation) else None
    if last is None or last.role != "assistant":
        raise DataError("has messages that do not end with an answer of the assistant")
    return last.content


def _answer(fields: Mapping[str, Any], name: str) -> str:
    value = fields[name]
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if not isinstance(value, str):
        raise DataError(f"has {name} = {str(value)[:40]!r}, expected a text")
    return value


def _label(value: Any) -> str | None:
    key = value.strip().casefold() if isinstance(value, str) else value
    if key is None:
        return None
    if not isinstance(key, str | int) or key not in _LABELS:
        raise DataError(f"has label = {str(value)[:40]!r}, expected true or false")
    return _LABELS[key]


def _winner(value: Any) -> str | None:
    if value is not None and value not in _WINNERS:
        raise DataError(f"has label = {str(value)[:40]!r}, expected a, b or tie")
    return value
