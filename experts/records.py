"""Files as records: every format that text comes in, before anybody asks what a record means.

| file                          | records                                                                          |
|-------------------------------|----------------------------------------------------------------------------------|
| `.txt`                        | the file is one document, or several where `<|endoftext|>` stands between them   |
| `.jsonl` `.json` `.parquet`   | one record each: a line, an item of the list (or the one object), a row          |
| `-`                           | standard input: JSON lines or a JSON list if it begins like one, otherwise text  |
"""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub.errors import DataError

SEPARATOR = "<|endoftext|>"
"""Stands between the documents of one text file."""


@dataclass(frozen=True)
class Record:
    """One record, or one document of a text file."""

    value: Any
    """A mapping of fields if it is well made; a `DataError` where the record cannot be parsed."""
    file: str
    """For error messages, as `standard input`."""
    place: str
    """Where in the file, as `line 3`; empty for a text file that is one document."""

    @property
    def origin(self) -> str:
        """Return file and place, for error messages."""
        return f"{self.file}, {self.place}" if self.place else self.file


def read(sources: Sequence[Path]) -> list[list[Record]]:
    """Return the records of each file, in order; the path `-` is standard input.

    Raises:
        DataError: a file is missing, empty, or in another encoding or format.
    """
    return [list(_read(source)) for source in sources]


def _read(source: Path) -> Iterator[Record]:
    if str(source) == "-":
        return _from_stdin(_decode(sys.stdin.buffer.read(), "standard input"))
    if not source.is_file():
        what = "is a folder" if source.is_dir() else "does not exist"
        raise DataError(f"{source} {what}, expected a .txt, .jsonl, .json or .parquet file, or - for standard input")
    if source.suffix == ".parquet":
        return _records(_rows(source), str(source))
    if source.suffix not in {".txt", ".jsonl", ".json"}:
        raise DataError(
            f"{source} has the ending {source.suffix!r}, expected .txt, .jsonl, .json or .parquet: "
            f"rename it, or pass plain text with `--data - < {source.name}`"
        )
    text = _decode(source.read_bytes(), str(source))
    if source.suffix == ".txt":
        return _documents(text, str(source))
    return _records(_lines(text) if source.suffix == ".jsonl" else _items(text, str(source)), str(source))


def _from_stdin(text: str) -> Iterator[Record]:
    name, start = "standard input", text.lstrip()
    if start.startswith(("{", "[{")):
        return _records(_items(text, name) if start.startswith("[") else _lines(text), name)
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


def _documents(text: str, name: str) -> Iterator[Record]:
    parts = text.split(SEPARATOR)
    if len(parts) == 1:
        yield Record({"text": text}, name, "")
        return
    documents = [part.strip("\n") for part in parts if part.strip()]
    for number, document in enumerate(documents, 1):
        yield Record({"text": document}, name, f"document {number}")


def _records(values: Iterator[tuple[str, Any]], name: str) -> Iterator[Record]:
    for place, value in values:
        yield Record(value, name, place)


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
