import datetime as dt
from pathlib import Path

import pytest

from moehub.corpus import writing
from moehub.errors import ConfigError, DataError
from moehub.experts import records
from moehub.experts.records import SEPARATOR, Record


def record(value: object) -> Record:
    return Record(value, "in.jsonl", "line 1")


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_records_come_back_with_all_fields(tmp_path: Path, ending: str) -> None:
    """Also those that no reader of text knows, and characters that end lines elsewhere."""
    values = [{"text": "ü\u2028é", "id": 1, "tags": ["a"]}, {"text": "two\nlines", "id": 2, "tags": []}]
    writing.write(tmp_path / f"out{ending}", [record(value) for value in values])
    assert [one.value for one in records.read([tmp_path / f"out{ending}"])[0]] == values


def test_rows_have_the_fields_of_all_records(tmp_path: Path) -> None:
    """A field that a record lacks is null there."""
    writing.write(tmp_path / "out.parquet", [record({"text": "one"}), record({"prompt": "p", "completion": "c"})])
    found = [one.value for one in records.read([tmp_path / "out.parquet"])[0]]
    assert found[1] == {"text": None, "prompt": "p", "completion": "c"}


def test_documents_become_one_text(tmp_path: Path) -> None:
    """With what parts documents between them."""
    writing.write(tmp_path / "out.txt", [record({"text": "one\n"}), record({"text": "two"})])
    assert (tmp_path / "out.txt").read_text() == f"one\n{SEPARATOR}\ntwo\n"
    assert [one.value["text"] for one in records.read([tmp_path / "out.txt"])[0]] == ["one", "two"]


@pytest.mark.parametrize(
    ("value", "why"),
    [({"text": "a", "id": 1}, "is more than a text"), ({"text": f"a{SEPARATOR}b"}, "parts documents"), ({}, "is more")],
)
def test_what_a_text_file_cannot_hold_is_refused(tmp_path: Path, value: object, why: str) -> None:
    """And nothing is written: what stood there stays."""
    (tmp_path / "out.txt").write_text("before")
    with pytest.raises(DataError, match=why):
        writing.write(tmp_path / "out.txt", [record({"text": "fine"}), record(value)])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("out.txt", "before")]


def test_fields_that_do_not_fit_into_columns_are_refused(tmp_path: Path) -> None:
    """With what to write instead."""
    with pytest.raises(DataError, match=r"cannot hold records with such different fields .* write .jsonl instead"):
        writing.write(tmp_path / "out.parquet", [record({"x": 1}), record({"x": {"y": "z"}})])
    assert list(tmp_path.iterdir()) == []


def test_what_json_has_no_word_for_becomes_text(tmp_path: Path) -> None:
    """A date of a parquet file, and half a character."""
    writing.write(tmp_path / "out.jsonl", [record({"d": dt.date(2024, 5, 6)}), record({"h": "\ud800"})])
    assert [one.value for one in records.read([tmp_path / "out.jsonl"])[0]] == [{"d": "2024-05-06"}, {"h": "\ud800"}]


def test_a_place_is_checked_before_the_work(tmp_path: Path) -> None:
    """Its ending, and that it is not read at the same time."""
    with pytest.raises(ConfigError, match=r"has the ending '.csv', expected one of .jsonl, .parquet, .txt"):
        writing.check_place(tmp_path / "out.csv", [])
    with pytest.raises(ConfigError, match="is named twice"):
        writing.check_place(tmp_path / "a.jsonl", [tmp_path / "x" / ".." / "a.jsonl"])
