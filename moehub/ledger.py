"""Records that are kept one by one while a long work is done, so that it goes on where it was killed.

A ledger is a file of JSON lines. A line counts when its line break is there: what a kill left of the last is dropped.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from moehub.errors import DataError

Entry = Mapping[str, Any]
T = TypeVar("T")
_PORTION = 16
"""Pieces of work that are done before they are kept."""


class Ledger:
    """A list of records that grows on the disk; with no path it stays in memory.

    Raises:
        DataError: the file holds lines that no ledger wrote.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.entries: list[Entry] = [] if path is None else _read(path)

    def add(self, entries: Iterable[Entry]) -> None:
        """Append records; when it returns, they are on the disk."""
        new = list(entries)
        self.entries += new
        if self.path is None or not new:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.writelines(line(entry) for entry in new)
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Remove the file: what it was kept for is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


def portions(work: Sequence[T], size: int = _PORTION) -> Iterator[Sequence[T]]:
    """Yield what is to be done in parts, after each of which it is kept."""
    yield from (work[begin : begin + size] for begin in range(0, len(work), size))


def line(entry: Entry) -> str:
    """Return a record as one line of JSON."""
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _read(path: Path) -> list[Entry]:
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return [_entry(one, number, path) for number, one in enumerate(whole.split(b"\n")[:-1], 1)]


def _entry(one: bytes, number: int, path: Path) -> Entry:
    try:
        value = json.loads(one)
    except ValueError as error:
        raise DataError(f"{path}, line {number} is no JSON ({error}): remove the line, or the file") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}, line {number} is no record with named fields: remove the line, or the file")
    return value
