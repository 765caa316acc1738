"""The journal: what happened, one line each, whole or not there."""

import errno
import json
import os
from pathlib import Path
from typing import Any, cast, get_args

import pytest

from moehub.errors import FederationError
from moehub.federation import journal
from moehub.federation.journal import (
    Aggregated,
    Began,
    Ended,
    Event,
    GaveUp,
    Joined,
    Journal,
    Missing,
    Published,
    Refused,
    Replied,
    RoundBegan,
)

EVENTS: list[Any] = [
    Began("r", "tiny", "ffa", 3, 0),
    Joined("a", "law", "cpu"),
    Refused(0, "b", "", "another\nbase “ü”"),
    Missing(1, "c", "law", "late"),
    RoundBegan(1, {"law": 2, "code": 1}),
    Replied(1, "a", "law", 100, 2.5, 1.25, 10, 20),
    Aggregated(1, "law", 2, 2.5, 20, 40, 3.0, ("a",), ("b", "c"), 0.25, 1.5),
    GaveUp(1, "code", "krum"),
    Published("law", "/x/law", 2, 3.0, None, 50),
    Ended(1, 9.5, "it was stopped"),
]


def test_every_event_comes_back_as_it_was(tmp_path: Path) -> None:
    """In order, with the time at which it was written; there is an example of each kind here."""
    written = Journal(tmp_path)
    for event in EVENTS:
        written.write(event)
    entries = list(Journal(tmp_path).entries())
    assert [entry.event for entry in entries] == EVENTS
    assert {type(event) for event in EVENTS} == set(get_args(Event))
    assert [entry.time for entry in entries] == sorted(entry.time for entry in entries)


def test_a_journal_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Nothing is made by reading."""
    assert Journal(tmp_path / "none").read() == ([], 0)
    assert not (tmp_path / "none").exists()


def test_reading_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Each line is seen once by who follows the journal."""
    written = Journal(tmp_path)
    written.write(EVENTS[0])
    first, place = written.read()
    written.write(EVENTS[1])
    second, end = written.read(place)
    assert [entry.event for entry in first + second] == EVENTS[:2]
    assert (written.read(end)[0], end) == ([], (tmp_path / journal.JOURNAL).stat().st_size)


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    """Half a line is no entry yet, and is read whole later."""
    written = Journal(tmp_path)
    written.write(EVENTS[0])
    whole = written.path.read_bytes()
    written.path.write_bytes(whole + whole[:20])
    entries, place = written.read()
    assert (len(entries), place) == (1, len(whole))
    written.path.write_bytes(whole + whole)
    assert [entry.event for entry in written.read(place)[0]] == [EVENTS[0]]


@pytest.mark.parametrize("line", ["{", "[]", '{"time": 1, "kind": "magic"}', '{"time": 1, "kind": "joined"}', '"x"'])
def test_a_line_that_no_moehub_wrote_is_named(tmp_path: Path, line: str) -> None:
    """With the cure."""
    (tmp_path / journal.JOURNAL).write_text(line + "\n")
    with pytest.raises(FederationError, match="which no moehub wrote"):
        Journal(tmp_path).read()


def test_a_full_disk_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be flushed is taken back, and the journal goes on afterwards."""
    written = Journal(tmp_path)
    written.write(EVENTS[0])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="full"):
            written.write(EVENTS[1])
    written.write(EVENTS[2])
    assert [entry.event for entry in written.entries()] == [EVENTS[0], EVENTS[2]]


def test_a_line_that_is_cut_short_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may take the beginning of a line and no more."""
    written = Journal(tmp_path)
    written.write(EVENTS[0])
    real = journal._append
    monkeypatch.setattr(journal, "_append", lambda file, line: real(cast("Any", _Short(file)), line))
    with pytest.raises(OSError, match="No space"):
        written.write(EVENTS[1])
    assert [entry.event for entry in written.entries()] == [EVENTS[0]]


def test_half_a_line_that_was_left_behind_is_taken_back(tmp_path: Path) -> None:
    """A machine lost its power in the middle of a line: the next one stands on its own, the whole ones stay."""
    written = Journal(tmp_path)
    for left in ("", json.dumps({"time": 1.0})[:5]):
        with written.path.open("a") as file:
            file.write(left)
        written.write(EVENTS[1])
    assert [entry.event for entry in written.entries()] == [EVENTS[1]] * 2


class _Short:
    """A file on a disk with room for ten more bytes."""

    def __init__(self, file: Any) -> None:
        self.file, self.name = file, file.name

    def write(self, line: bytes) -> int:
        return int(self.file.write(line[:10]))
