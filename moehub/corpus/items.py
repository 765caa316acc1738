"""Records with what they say: which kind they are, in which format, and the text to compare them by."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from moehub.chat import Prompt
from moehub.errors import DataError, listed
from moehub.experts import data, records
from moehub.experts.examples import Completion, Conversation, Practice, Preference, Rated, Task, Text
from moehub.experts.records import Record

Kind: TypeAlias = Literal["text", "preference", "rated", "task"]
KINDS: tuple[Kind, ...] = ("text", "preference", "rated", "task")
"""What is learned from: text or answers to imitate, pairs of answers, rated answers, prompts."""
CHARACTERS_OF_A_TOKEN = 4
"""An estimate, where no tokenizer is asked."""
_MOST_FAULTS = 10


@dataclass(frozen=True)
class Item:
    """A record that somebody can learn from."""

    record: Record
    form: str
    """`document`, `conversation`, `instruction`, `completion`, `preference`, `rated` or `task`."""
    says: tuple[Practice, ...]
    """One; two of a preference that is read as two rated answers."""

    @property
    def text(self) -> str:
        """All that it says, prompt and answers, on lines of their own."""
        return "\n".join(part for one in self.says for part in _parts(one))


def read(sources: Sequence[Path], kind: Kind | None = None) -> list[Item]:
    """Return the items in files, in order; the path `-` is standard input.

    Raises:
        DataError: a file cannot be read, or has records that are no items; every one is counted, ten are named.
    """
    found: list[Item] = []
    faults: list[str] = []
    for record in (record for file in records.read(sources) for record in file):
        try:
            found.append(item_of(record, kind))
        except DataError as error:
            faults.append(f"{record.origin}: {error}")
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        summary = f"{len(faults)} record(s) are none to learn from; `moehub data check --clean FILE` leaves them out:"
        raise DataError(listed(summary, [*faults[:_MOST_FAULTS], *more]))
    return found


def item_of(record: Record, kind: Kind | None = None) -> Item:
    """Return the item that a record is, of one kind or of the kind that its fields show.

    Raises:
        DataError: it is none; the sentence goes on from the record's place.
    """
    match kind or _kind(record.value):
        case "preference":
            return Item(record, "preference", (data.preference_of(record),))
        case "rated":
            says = data.rated_of(record)
            return Item(record, "rated" if len(says) == 1 else "preference", tuple(says))
        case "task":
            return Item(record, "task", (data.task_of(record),))
        case _:
            return Item(record, _form(record.value), (data.example_of(record),))


def is_empty(value: Any) -> bool:
    """Return whether a record that is no item has the fields of one, or none, and nothing in them to read."""
    if not isinstance(value, dict):
        return value in ("", None, [])
    blank = [name for name, one in value.items() if one is not None and _is_blank(one)]
    return len(blank) == sum(one is not None for one in value.values()) or not _READ.isdisjoint(blank)


_READ = frozenset({"text", "messages", "instruction", "output", "prompt", "completion", "chosen", "rejected"})


def _is_blank(value: Any) -> bool:
    return value == [] or (isinstance(value, str) and not value.strip())


def _kind(value: Any) -> Kind:
    fields = {name for name, one in value.items() if one is not None} if isinstance(value, dict) else set()
    if {"chosen", "rejected"} <= fields:
        return "preference"
    answered = not fields.isdisjoint({"completion", "output"})
    if answered and not fields.isdisjoint({"prompt", "instruction"}) and isinstance(value.get("label"), bool):
        return "rated"
    if "messages" in fields:
        return "text" if any(_role(one) == "assistant" for one in _list(value["messages"])) else "task"
    if answered or "text" in fields or fields.isdisjoint({"prompt", "instruction"}):
        return "text"
    return "task"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _role(message: Any) -> Any:
    return message.get("role") if isinstance(message, dict) else None


def _form(value: Any) -> str:
    for field, form in (("messages", "conversation"), ("output", "instruction"), ("completion", "completion")):
        if isinstance(value, dict) and value.get(field) is not None:
            return form
    return "document"


def _parts(one: Practice) -> list[str]:
    match one:
        case Text():
            return [one.text]
        case Completion():
            return [one.prompt, one.completion]
        case Conversation():
            return _turns(one.messages)
        case Preference():
            return [*_turns(one.prompt), one.chosen, one.rejected]
        case Rated():
            return [*_turns(one.prompt), one.completion]
        case Task():
            return _turns(one.prompt)


def _turns(prompt: Prompt) -> list[str]:
    return [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
