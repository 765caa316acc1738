"""Reading training data: records become examples, and every fault names its file and line.

`moehub.experts.records` reads the files. What a record is, is decided record by record, by the first line of a table
whose fields it has; other fields are ignored. For text to learn (`read`):

| fields                                | example                                                              |
|---------------------------------------|----------------------------------------------------------------------|
| `messages`: list of `role`, `content` | conversation                                                         |
| `instruction`, `output` [, `input`]   | conversation of one question and one answer; the question is the     |
| (Alpaca)                              | instruction, then, after a blank line, the input if there is one     |
| `prompt`, `completion`                | completion of a prompt as it stands; a conversation if they are      |
|                                       | lists of messages                                                    |
| `text`                                | document                                                             |

A prompt (of what follows) is `prompt`, a text as it stands or a list of messages; or `instruction` [, `input`], or
`messages`, whose last answer is left away.

| read by            | fields                                                                                  |
|--------------------|-----------------------------------------------------------------------------------------|
| `read_preferences` | a prompt, `chosen`, `rejected`: texts or messages; or the two alone, as whole           |
|                    | conversations that differ in their last answer                                          |
| `read_rated`       | a prompt, `completion` or `output`, `label`: true or false; a preference counts as two  |
| `read_tasks`       | a prompt; every other field is kept for the rewards                                     |
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from moehub.chat import Message, Prompt
from moehub.errors import DataError, listed
from moehub.experts import records
from moehub.experts.examples import Completion, Conversation, Example, Preference, Rated, Task, Text
from moehub.experts.records import Record

T = TypeVar("T")
_MOST_FAULTS = 10
_HALF = re.compile("[\ud800-\udfff]")


def read(sources: Sequence[Path]) -> list[Example]:
    """Return the examples in files, in order; the path `-` is standard input.

    Raises:
        DataError: a file is missing, empty, in another encoding or format, or has records that are no
            examples; every faulty record of a file is counted and the first ten are named.
    """
    return _read(sources, lambda record: [example_of(record)], "document or conversation")


def read_preferences(sources: Sequence[Path]) -> list[Preference]:
    """Return the pairs of answers in files, in order.

    Raises:
        DataError: as `read`.
    """
    return _read(sources, lambda record: [preference_of(record)], "pair of answers")


def read_rated(sources: Sequence[Path]) -> list[Rated]:
    """Return the rated answers in files, in order; the two of a preference are a good and a bad one.

    Raises:
        DataError: as `read`.
    """
    return _read(sources, rated_of, "rated answer")


def read_tasks(sources: Sequence[Path]) -> list[Task]:
    """Return the prompts in files, in order, each with what else its record says.

    Raises:
        DataError: as `read`.
    """
    return _read(sources, lambda record: [task_of(record)], "prompt")


def _read(sources: Sequence[Path], parse: Callable[[Record], Sequence[T]], what: str) -> list[T]:
    found = [one for file in records.read(sources) for one in _parsed(file, parse)]
    if not found:
        names = ", ".join(map(str, sources)) or "no files"
        raise DataError(f"there are no examples in {names}: expected at least one {what}")
    return found


def _parsed(file: Sequence[Record], parse: Callable[[Record], Sequence[T]]) -> list[T]:
    found: list[T] = []
    faults: list[str] = []
    for record in file:
        try:
            found += parse(record)
        except DataError as error:
            faults.append(f"{record.place} {error}".strip())
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise DataError(
            listed(
                f"{file[0].file} has {len(faults)} record(s) that cannot be learned from; correct or remove them:",
                [*faults[:_MOST_FAULTS], *more],
            )
        )
    return found


def example_of(record: Record) -> Example:
    """Return the example that a record is.

    Raises:
        DataError: it is none; the sentence goes on from the record's place.
    """
    values, fields = _fields(record)
    if "messages" in fields:
        return Conversation(_answered(values["messages"]), record.origin)
    if {"instruction", "output"} <= fields:
        answer = Message("assistant", _string(values, "output"))
        return Conversation((Message("user", _question(values)), answer), record.origin)
    if {"prompt", "completion"} <= fields:
        return _completion(values, record.origin)
    if "text" in fields:
        return Text(_string(values, "text"), record.origin)
    raise DataError(
        f"has the fields {_named(fields)}; expected messages, or instruction and output, or prompt and completion, "
        "or text"
    )


def preference_of(record: Record) -> Preference:
    """Return the preference that a record is.

    Raises:
        DataError: it is none; the sentence goes on from the record's place.
    """
    values, fields = _fields(record)
    if not {"chosen", "rejected"} <= fields:
        raise DataError(f"has the fields {_named(fields)}; expected prompt, chosen and rejected")
    if fields.isdisjoint(_PROMPTS):
        prompt, chosen, rejected = _whole(values)
    else:
        prompt, chosen, rejected = _prompt(values, fields), _answer(values, "chosen"), _answer(values, "rejected")
    if chosen == rejected:
        raise DataError("has a chosen answer that is its rejected one, so it prefers nothing")
    return Preference(prompt, chosen, rejected, record.origin)


def rated_of(record: Record) -> list[Rated]:
    """Return the rated answers of a record: one, or the two of a preference.

    Raises:
        DataError: it has none; the sentence goes on from the record's place.
    """
    values, fields = _fields(record)
    if {"chosen", "rejected"} <= fields:
        pair = preference_of(record)
        return [
            Rated(pair.prompt, pair.chosen, good=True, origin=pair.origin),
            Rated(pair.prompt, pair.rejected, good=False, origin=pair.origin),
        ]
    answer = next((name for name in ("completion", "output") if name in fields), None)
    if answer is None or "label" not in fields or fields.isdisjoint(_PROMPTS):
        raise DataError(f"has the fields {_named(fields)}; expected prompt, completion and label, or a preference")
    if not isinstance(values["label"], bool):
        raise DataError(f"has label = {str(values['label'])[:40]!r}, expected true for a good answer or false")
    return [Rated(_prompt(values, fields), _answer(values, answer), good=values["label"], origin=record.origin)]


def task_of(record: Record) -> Task:
    """Return the task that a record is: its prompt, and every field that is no part of it.

    Raises:
        DataError: it has no prompt; the sentence goes on from the record's place.
    """
    values, fields = _fields(record)
    if fields.isdisjoint(_PROMPTS):
        raise DataError(f"has the fields {_named(fields)}; expected a prompt, an instruction or messages")
    prompt = _prompt(values, fields)
    kept = {name: value for name, value in values.items() if name not in {"prompt", "instruction", "input", "messages"}}
    return Task(prompt, kept, record.origin)


_PROMPTS = frozenset({"prompt", "instruction", "messages"})
"""Fields of which one is the prompt, looked for in this order."""


def _fields(record: Record) -> tuple[Mapping[str, Any], set[str]]:
    """Return a record's values, and the names of those that are there."""
    if isinstance(record.value, DataError):
        raise record.value
    if not isinstance(record.value, dict):
        raise DataError(f"is a {type(record.value).__name__}, expected a record with named fields")
    return record.value, {name for name, value in record.value.items() if value is not None}


def _named(fields: set[str]) -> str:
    return ", ".join(sorted(map(str, fields))) or "(none)"


def _question(values: Mapping[str, Any]) -> str:
    question = _string(values, "instruction")
    return question if values.get("input") in (None, "") else question + "\n\n" + _string(values, "input")


def _completion(values: Mapping[str, Any], origin: str) -> Example:
    if isinstance(values["prompt"], list) and isinstance(values["completion"], list):
        return Conversation(_answered([*values["prompt"], *values["completion"]]), origin)
    return Completion(_string(values, "prompt"), _string(values, "completion"), origin)


def _prompt(values: Mapping[str, Any], fields: set[str]) -> Prompt:
    if "prompt" in fields:
        given = values["prompt"]
        return _asking(given) if isinstance(given, list) else _string(values, "prompt")
    return (Message("user", _question(values)),) if "instruction" in fields else _asking(values["messages"])


def _asking(values: Any) -> tuple[Message, ...]:
    """Return the turns up to the last that is not the assistant's."""
    turns = _messages(values)
    while turns and turns[-1].role == "assistant":
        turns = turns[:-1]
    if not turns:
        raise DataError("has a prompt in which nobody asks: expected a message of the user")
    return turns


def _answer(values: Mapping[str, Any], name: str) -> str:
    """Return an answer, which may be a text, or one message of the assistant, after its prompt or not."""
    if not isinstance(values[name], list):
        return _string(values, name)
    turns = _messages(values[name])
    if not turns or turns[-1].role != "assistant":
        raise DataError(f"has {name} without an answer at its end, expected a message of the assistant")
    return turns[-1].content


def _whole(values: Mapping[str, Any]) -> tuple[Prompt, str, str]:
    """Return prompt and answers of two conversations."""
    if not (isinstance(values["chosen"], list) and isinstance(values["rejected"], list)):
        raise DataError("has chosen and rejected, but no prompt: expected one, or two lists of messages")
    one, other = _asking(values["chosen"]), _asking(values["rejected"])
    if one != other:
        raise DataError("has chosen and rejected that answer different conversations")
    return one, _answer(values, "chosen"), _answer(values, "rejected")


def _answered(values: Any) -> tuple[Message, ...]:
    messages = _messages(values)
    if not any(message.role == "assistant" for message in messages):
        raise DataError("has no message of the assistant, so there is nothing to learn")
    return messages


def _messages(values: Any) -> tuple[Message, ...]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DataError("has messages that are no list of records with role and content")
    return tuple(Message(_string(value, "role"), _string(value, "content")) for value in values)


def _string(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise DataError(f"has {name} = {str(value)[:40]!r}, expected a text")
    if not value.strip():
        raise DataError(f"has an empty {name}")
    if not value.isascii() and _HALF.search(value):
        raise DataError(f"has half a character (a lone surrogate) in {name}")
    return value
