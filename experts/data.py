"""Reading training data: files of several formats become examples, and every fault names its file and line.

| file                          | examples                                                                         |
|-------------------------------|----------------------------------------------------------------------------------|
| `.txt`                        | the file is one document, or several where `<|endoftext|>` stands between them   |
| `.jsonl` `.json` `.parquet`   | one record each: a line, an item of the list (or the one object), a row          |
| `-`                           | standard input: JSON lines or a JSON list if it begins like one, otherwise text  |

What a record is, is decided record by record, by the first line of this table whose fields it has; other
fields are ignored:

| fields                                | example                                                              |
|---------------------------------------|----------------------------------------------------------------------|
| `messages`: list of `role`, `content` | conversation                                                         |
| `instruction`, `output` [, `input`]   | conversation of one question and one answer; the question is the     |
| (Alpaca)                              | instruction, then, after a blank line, the input if there is one     |
| `prompt`, `completion`                | completion of a prompt as it stands; a conversation if they are      |
|                                       | lists of messages                                                    |
| `text`                                | document                                                             |
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moehub.chat import Message
from moehub.errors import DataError, listed
from moehub.experts.examples import Completion, Conversation, Example, Text

SEPARATOR = "<|endoftext|>"
"""Stands between the documents of one text file."""
_MOST_FAULTS = 10


def read(sources: Sequence[Path]) -> list[Example]:
    """Return the examples in files, in order; the path `-` is standard input.

    Raises:
        DataError: a file is missing, empty, in another encoding or format, or has records that are no
            examples; every faulty record of a file is counted and the first ten are named.
    """
    examples = [example for source in sources for example in _read(source)]
    if not examples:
        raise DataError(f"there are no examples in {_names(sources)}: expected at least one document or conversation")
    return examples


def _read(source: Path) -> list[Example]:
    if str(source) == "-":
        return _from_stdin(_decode(sys.stdin.buffer.read(), "standard input"))
    if not source.is_file():
        what = "is a folder" if source.is_dir() else "does not exist"
        raise DataError(f"{source} {what}, expected a .txt, .jsonl, .json or .parquet file, or - for standard input")
    if source.suffix == ".parquet":
        return _examples(_rows(source), str(source))
    if source.suffix not in {".txt", ".jsonl", ".json"}:
        raise DataError(
            f"{source} has the ending {source.suffix!r}, expected .txt, .jsonl, .json or .parquet: "
            f"rename it, or pass plain text with `--data - < {source.name}`"
        )
    text = _decode(source.read_bytes(), str(source))
    if source.suffix == ".txt":
        return _documents(text, str(source))
    return _examples(_lines(text) if source.suffix == ".jsonl" else _items(text, str(source)), str(source))


def _from_stdin(text: str) -> list[Example]:
    name, start = "standard input", text.lstrip()
    if start.startswith(("{", "[{")):
        return _examples(_items(text, name) if start.startswith("[") else _lines(text), name)
    return _documents(text, name)


def _decode(content: bytes, name: str) -> str:
    if not content.strip():
        raise DataError(f"{name} is empty, expected text or records: choose another file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = "UTF-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "WINDOWS-1252"
        raise DataError(
            f"{name} is not UTF-8: byte 0x{content[error.start]:02x} at offset {error.start}. "
            f"Convert it, for example with `iconv -f {encoding} -t UTF-8 OLD > NEW`"
        ) from error
    if "\0" in text:
        raise DataError(f"{name} is no text: it has a zero byte at character {text.index(chr(0))}; choose another file")
    return text.replace("\r\n", "\n")


def _documents(text: str, name: str) -> list[Example]:
    parts = text.split(SEPARATOR)
    if len(parts) == 1:
        return [Text(text, origin=name)]
    documents = [part.strip("\n") for part in parts if part.strip()]
    return [Text(document, origin=f"{name}, document {number}") for number, document in enumerate(documents, 1)]


def _lines(text: str) -> Iterator[tuple[str, Any]]:
    # Not splitlines(): a JSON string may hold U+2028 and other characters that it takes for ends of lines.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield f"line {number}", _parsed(line)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        return DataError(f"is no JSON ({error.msg} at column {error.colno})")
    except RecursionError:
        return DataError("is nested too deeply")


def _items(text: str, name: str) -> Iterator[tuple[str, Any]]:
    try:
        values = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(
            f"{name} is no JSON ({error}); if it holds one record per line, give it the ending .jsonl"
        ) from error
    if not isinstance(values, (list, dict)):
        raise DataError(f"{name} holds a {type(values).__name__}, expected a list of records")
    for number, value in enumerate(values if isinstance(values, list) else [values], 1):
        yield f"record {number}", value


def _rows(source: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(source)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source} is no parquet file ({error}): write it again") from error
    for number, row in enumerate(table.to_pylist(), 1):
        yield f"row {number}", row


def _examples(records: Iterator[tuple[str, Any]], name: str) -> list[Example]:
    examples: list[Example] = []
    faults: list[str] = []
    for place, record in records:
        try:
            examples.append(_example(record, f"{name}, {place}"))
        except DataError as error:
            faults.append(f"{place} {error}")
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        raise DataError(
            listed(
                f"{name} has {len(faults)} record(s) that cannot be learned from; correct or remove them:",
                [*faults[:_MOST_FAULTS], *more],
            )
        )
    return examples


def _example(record: Any, origin: str) -> Example:
    if isinstance(record, DataError):
        raise record
    if not isinstance(record, dict):
        raise DataError(f"is a {type(record).__name__}, expected a record with named fields")
    fields = {name for name, value in record.items() if value is not None}
    if "messages" in fields:
        return Conversation(_messages(record["messages"]), origin)
    if {"instruction", "output"} <= fields:
        return _alpaca(record, origin)
    if {"prompt", "completion"} <= fields:
        return _completion(record, origin)
    if "text" in fields:
        return Text(_string(record, "text"), origin)
    raise DataError(
        f"has the fields {', '.join(sorted(map(str, fields))) or '(none)'}; expected messages, or instruction and "
        "output, or prompt and completion, or text"
    )


def _alpaca(record: Mapping[str, Any], origin: str) -> Conversation:
    question = _string(record, "instruction")
    if record.get("input") not in (None, ""):
        question += "\n\n" + _string(record, "input")
    return Conversation((Message("user", question), Message("assistant", _string(record, "output"))), origin)


def _completion(record: Mapping[str, Any], origin: str) -> Example:
    if isinstance(record["prompt"], list) and isinstance(record["completion"], list):
        return Conversation(_messages([*record["prompt"], *record["completion"]]), origin)
    return Completion(_string(record, "prompt"), _string(record, "completion"), origin)


def _messages(values: Any) -> tuple[Message, ...]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise DataError("has messages that are no list of records with role and content")
    messages = tuple(Message(_string(value, "role"), _string(value, "content")) for value in values)
    if not any(message.role == "assistant" for message in messages):
        raise DataError("has no message of the assistant, so there is nothing to learn")
    return messages


def _string(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name)
    if not isinstance(value, str):
        raise DataError(f"has {name} = {str(value)[:40]!r}, expected a text")
    if not value.strip():
        raise DataError(f"has an empty {name}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise DataError(f"has half a character (a lone surrogate) in {name}")
    return value


def _names(sources: Sequence[Path]) -> str:
    return ", ".join(map(str, sources)) or "no files"
