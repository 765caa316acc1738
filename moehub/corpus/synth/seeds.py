"""What new text begins from: documents, tasks, and tasks with answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moehub.chat import Prompt
from moehub.errors import DataError
from moehub.experts import data, records
from moehub.experts.examples import Completion, Conversation, Text
from moehub.experts.records import Record


@dataclass(frozen=True)
class Seed:
    """One record."""

    text: str
    """A document, or what is asked in a task."""
    answer: str | None
    """Of a task, where one is known."""
    is_task: bool
    origin: str


def read(sources: Sequence[Path]) -> list[Seed]:
    """Return the seeds in files, in order.

    Raises:
        DataError: a file cannot be read, has a record that is neither a document nor a task, or there are none.
    """
    found = [_seed(record) for file in records.read(sources) for record in file]
    if not found:
        raise DataError(f"there are no seeds in {', '.join(map(str, sources))}: expected at least one")
    return found


def _seed(record: Record) -> Seed:
    try:
        return _read(record)
    except DataError as error:
        raise DataError(f"{record.origin} {error}") from error


def _read(record: Record) -> Seed:
    fields = record.value if isinstance(record.value, dict) else {}
    answered = {"text", "output", "completion"} & {name for name, value in fields.items() if value is not None}
    messages = fields.get("messages")
    if not answered and not (isinstance(messages, list) and messages and _role(messages[-1]) == "assistant"):
        return Seed(_asked(data.task_of(record).prompt), None, is_task=True, origin=record.origin)
    example = data.example_of(record)
    match example:
        case Text():
            return Seed(example.text, None, is_task=False, origin=record.origin)
        case Completion():
            return Seed(example.prompt, example.completion, is_task=True, origin=record.origin)
        case Conversation():
            asked = _asked(data.task_of(record).prompt)
            return Seed(asked, example.messages[-1].content, is_task=True, origin=record.origin)


def _role(message: object) -> object:
    return message.get("role") if isinstance(message, dict) else None


def _asked(prompt: Prompt) -> str:
    """Return what is asked; of a conversation its only question.

    Raises:
        DataError: there are several turns, which one text cannot say.
    """
    if isinstance(prompt, str):
        return prompt
    asked = [message for message in prompt if message.role != "system"]
    if len(asked) != 1:
        raise DataError(f"has a conversation of {len(asked)} turns before its answer, expected one question")
    return asked[0].content
