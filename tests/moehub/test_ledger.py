"""Records that are kept while a long work is done."""

from pathlib import Path

import pytest

from moehub.errors import DataError
from moehub.ledger import Ledger


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    """In order, in whatever script, and its folder is made."""
    first = Ledger(tmp_path / "new" / "kept.jsonl")
    first.add([{"said": "жди\u2028me"}, {"n": 2}])
    first.add([{"n": 3}])
    assert (
        Ledger(tmp_path / "new" / "kept.jsonl").entries
        == first.entries
        == [{"said": "жди\u2028me"}, {"n": 2}, {"n": 3}]
    )


def test_half_a_line_is_dropped_and_the_work_goes_on(tmp_path: Path) -> None:
    """A kill may come while a line is written."""
    path = tmp_path / "kept.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2')
    ledger = Ledger(path)
    assert ledger.entries == [{"n": 1}]
    ledger.add([{"n": 3}])
    assert Ledger(path).entries == [{"n": 1}, {"n": 3}]


@pytest.mark.parametrize(("line", "what"), [(b"text\n", "no JSON"), (b"[1]\n", "no record"), (b"\xff\n", "no JSON")])
def test_lines_that_no_ledger_wrote_are_refused(tmp_path: Path, line: bytes, what: str) -> None:
    """With file and line."""
    path = tmp_path / "kept.jsonl"
    path.write_bytes(b'{"n": 1}\n' + line)
    with pytest.raises(DataError, match=f"kept.jsonl, line 2 is {what}"):
        Ledger(path)


def test_without_a_path_nothing_is_written() -> None:
    """It is a list in memory."""
    ledger = Ledger(None)
    ledger.add([{"n": 1}])
    ledger.remove()
    assert ledger.entries == [{"n": 1}]


def test_what_is_done_is_removed(tmp_path: Path) -> None:
    """Twice is no error."""
    ledger = Ledger(tmp_path / "kept.jsonl")
    ledger.add([{"n": 1}])
    ledger.remove()
    ledger.remove()
    assert not (tmp_path / "kept.jsonl").exists()
