import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from moehub.chat import Message, Prompt
from moehub.errors import DataError
from moehub.experts import data
from moehub.experts.examples import (
    Completion,
    Conversation,
    Example,
    Preference,
    Rated,
    Task,
    Text,
)

MESSAGES = [{"role": "user", "content": "Two and two?"}, {"role": "assistant", "content": "Four."}]
CONVERSATION = Conversation((Message("user", "Two and two?"), Message("assistant", "Four.")))
RECORDS: list[tuple[dict[str, Any], Example]] = [
    ({"messages": MESSAGES}, CONVERSATION),
    ({"messages": MESSAGES, "text": "ignored", "id": 7}, CONVERSATION),
    ({"instruction": "Two and two?", "output": "Four."}, CONVERSATION),
    ({"instruction": "Two and two?", "input": "", "output": "Four.", "text": "ignored"}, CONVERSATION),
    (
        {"instruction": "Add.", "input": "2, 2", "output": "4"},
        Conversation((Message("user", "Add.\n\n2, 2"), Message("assistant", "4"))),
    ),
    ({"prompt": "Two and two is", "completion": " four."}, Completion("Two and two is", " four.")),
    ({"prompt": MESSAGES[:1], "completion": MESSAGES[1:]}, CONVERSATION),
    ({"text": "A document."}, Text("A document.")),
]


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Return a function that sets what standard input holds."""

    def feed(content: bytes) -> None:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(content)))

    return feed


def _write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def _lines(path: Path, *records: Any) -> Path:
    return _write(path, "\n".join(json.dumps(record) for record in records))


@pytest.mark.parametrize(("record", "expected"), RECORDS)
def test_every_kind_of_record_is_understood(tmp_path: Path, record: dict[str, Any], expected: Example) -> None:
    """A record becomes the example that its fields say, extra fields or not."""
    assert data.read([_lines(tmp_path / "a.jsonl", record)]) == [expected]


def test_kinds_of_records_may_be_mixed_in_one_file(tmp_path: Path) -> None:
    """What a record is, is decided for each one."""
    file = _lines(tmp_path / "a.jsonl", *(record for record, _ in RECORDS))
    assert data.read([file]) == [expected for _, expected in RECORDS]


def test_json_list_and_parquet_hold_the_same_as_json_lines(tmp_path: Path) -> None:
    """The same records give the same examples in all three formats."""
    records = [{"instruction": "Add.", "input": None, "output": str(number)} for number in range(3)]
    lines = _lines(tmp_path / "a.jsonl", *records)
    whole = _write(tmp_path / "a.json", json.dumps(records))
    parquet.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
    expected = data.read([lines])
    assert [data.read([whole]), data.read([tmp_path / "a.parquet"])] == [expected, expected]
    assert len(expected) == 3


def test_parquet_with_messages_is_read(tmp_path: Path) -> None:
    """Nested columns come back as conversations."""
    parquet.write_table(pa.Table.from_pylist([{"messages": MESSAGES}]), tmp_path / "a.parquet")
    assert data.read([tmp_path / "a.parquet"]) == [CONVERSATION]


def test_one_json_object_is_one_record(tmp_path: Path) -> None:
    """A file with a single object is no error."""
    assert data.read([_write(tmp_path / "a.json", '{"text": "one"}')]) == [Text("one")]


def test_text_file_is_one_document(tmp_path: Path) -> None:
    """Blank lines do not end a document, and its text is kept to the character, but for Windows line ends."""
    assert data.read([_write(tmp_path / "a.txt", "one\r\n\r\n two\n")]) == [Text("one\n\n two\n")]


def test_text_file_is_cut_at_the_separator(tmp_path: Path) -> None:
    """`<|endoftext|>` stands between documents; empty ones do not count."""
    file = _write(tmp_path / "a.txt", "one\n<|endoftext|>\ntwo\nlines\n<|endoftext|>\n\n")
    assert data.read([file]) == [Text("one"), Text("two\nlines")]


def test_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    """A UTF-8 file that some editor marked as such is read without the mark."""
    assert data.read([_write(tmp_path / "a.txt", b"\xef\xbb\xbfone")]) == [Text("one")]


def test_line_separators_inside_of_json_strings_end_no_line(tmp_path: Path) -> None:
    """U+2028 and a form feed are characters of a text like any other."""
    line = '{"text": "one\u2028two\u0085three"}'
    assert data.read([_write(tmp_path / "a.jsonl", line)]) == [Text("one\u2028two\u0085three")]


def test_several_files_are_read_in_order(tmp_path: Path) -> None:
    """The examples of the first file come first."""
    files = [_write(tmp_path / f"{name}.txt", name) for name in "ba"]
    assert data.read(files) == [Text("b"), Text("a")]


def test_origin_names_file_and_line(tmp_path: Path) -> None:
    """Blank lines are counted, so that the number is an editor's."""
    file = _write(tmp_path / "a.jsonl", '{"text": "one"}\n\n{"text": "two"}\n')
    assert [example.origin for example in data.read([file])] == [f"{file}, line 1", f"{file}, line 3"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"text": "one"}\n{"text": "two"}\n', [Text("one"), Text("two")]),
        (b'[{"text": "one"}]', [Text("one")]),
        (b"plain text\n", [Text("plain text\n")]),
        (b"[1] is a footnote", [Text("[1] is a footnote")]),
    ],
)
def test_standard_input_is_recognised(stdin: Callable[[bytes], None], content: bytes, expected: list[Example]) -> None:
    """Records and plain text are told apart by how they begin."""
    stdin(content)
    assert data.read([Path("-")]) == expected


@pytest.mark.parametrize(
    ("name", "content", "fragments"),
    [
        ("a.txt", "", ["a.txt is empty"]),
        ("a.jsonl", " \n\n ", ["a.jsonl is empty"]),
        ("a.json", "[]", ["no examples"]),
        ("a.txt", "<|endoftext|>\n<|endoftext|>", ["no examples"]),
        ("a.txt", b"caf\xe9", ["not UTF-8", "0xe9 at offset 3", "iconv -f WINDOWS-1252 -t UTF-8"]),
        ("a.txt", "text".encode("utf-16"), ["not UTF-8", "iconv -f UTF-16 -t UTF-8"]),
        ("a.txt", b"one\0two", ["zero byte at character 3"]),
        ("a.md", "text", ["'.md'", "expected .txt, .jsonl, .json or .parquet", "--data -"]),
        ("a.jsonl", '{"text": "one"}\n{"text": \n', ["1 record(s)", "line 2 is no JSON"]),
        ("a.json", '{"text": "one"}\n{"text": "two"}', ["a.json is no JSON", ".jsonl"]),
        ("a.json", "3", ["holds a int, expected a list"]),
        ("a.parquet", b"PAR1 no", ["a.parquet is no parquet file"]),
        ("a.jsonl", '"text"', ["line 1 is a str, expected a record"]),
        ("a.jsonl", '{"question": "q", "answer": "a"}', ["line 1 has the fields answer, question; expected messages"]),
        ("a.jsonl", "{}", ["line 1 has the fields (none)"]),
        ("a.jsonl", '{"text": " "}', ["line 1 has an empty text"]),
        ("a.jsonl", '{"text": 3}', ["line 1 has text = '3', expected a text"]),
        ("a.jsonl", '{"text": "\\ud800"}', ["line 1 has half a character"]),
        ("a.jsonl", '{"instruction": "i", "output": ""}', ["line 1 has an empty output"]),
        ("a.jsonl", '{"messages": "hello"}', ["line 1 has messages that are no list"]),
        ("a.jsonl", '{"messages": [{"role": "user"}]}', ["line 1 has content = 'None'"]),
        ("a.jsonl", '{"messages": [{"role": "user", "content": "q"}]}', ["no message of the assistant"]),
        ("a.jsonl", "[" * 100_000, ["line 1"]),
    ],
)
def test_unusable_files_are_refused_with_their_cure(
    tmp_path: Path, name: str, content: str | bytes, fragments: list[str]
) -> None:
    """The sentence names the file, the place, what is wrong and what to do."""
    with pytest.raises(DataError) as caught:
        data.read([_write(tmp_path / name, content)])
    assert [fragment for fragment in fragments if fragment not in str(caught.value)] == []


@pytest.mark.parametrize(("name", "what"), [("missing.txt", "does not exist"), ("", "is a folder")])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str, what: str) -> None:
    """A wrong path is named as it was given."""
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path / name))} {what}"):
        data.read([tmp_path / name])


def test_all_faulty_records_are_counted_and_ten_are_named(tmp_path: Path) -> None:
    """One run tells a person about the whole file."""
    file = _lines(tmp_path / "a.jsonl", *({"text": ""} for _ in range(13)), {"text": "good"})
    with pytest.raises(DataError) as caught:
        data.read([file])
    lines = str(caught.value).splitlines()
    assert "13 record(s)" in lines[0]
    assert (lines[1], lines[-1], len(lines)) == ("  - line 1 has an empty text", "  - and 3 more", 12)


ASKED = [{"role": "user", "content": "Two and two?"}]
ANSWERED = (Message("user", "Two and two?"),)
GOOD, BAD = {"role": "assistant", "content": "Four."}, {"role": "assistant", "content": "Five."}


@pytest.mark.parametrize(
    ("record", "prompt"),
    [
        ({"prompt": "2+2=", "chosen": "Four.", "rejected": "Five."}, "2+2="),
        ({"prompt": ASKED, "chosen": [GOOD], "rejected": [BAD]}, ANSWERED),
        ({"instruction": "Two and two?", "chosen": "Four.", "rejected": "Five."}, ANSWERED),
        ({"messages": [*ASKED, BAD], "chosen": "Four.", "rejected": "Five."}, ANSWERED),
        ({"chosen": [*ASKED, GOOD], "rejected": [*ASKED, BAD]}, ANSWERED),
    ],
)
def test_every_form_of_preference_is_understood(tmp_path: Path, record: dict[str, Any], prompt: Prompt) -> None:
    """The prompt may stand beside the answers or before both of them; as rated answers they are two."""
    file = _lines(tmp_path / "a.jsonl", record)
    assert data.read_preferences([file]) == [Preference(prompt, "Four.", "Five.")]
    assert data.read_rated([file]) == [Rated(prompt, "Four.", good=True), Rated(prompt, "Five.", good=False)]


def test_a_rated_answer_has_a_label(tmp_path: Path) -> None:
    """True is a good answer."""
    file = _lines(tmp_path / "a.jsonl", {"prompt": "2+2=", "completion": "5", "label": False})
    assert data.read_rated([file]) == [Rated("2+2=", "5", good=False)]


def test_a_task_keeps_what_rewards_may_want_to_know(tmp_path: Path) -> None:
    """The prompt's own fields are no others."""
    file = _lines(tmp_path / "a.jsonl", {"instruction": "Add.", "input": "2 2", "answer": 4, "id": 7})
    assert data.read_tasks([file]) == [Task((Message("user", "Add.\n\n2 2"),), {"answer": 4, "id": 7})]


@pytest.mark.parametrize(
    ("read", "record", "sentence"),
    [
        (data.read_preferences, {"prompt": "a", "chosen": "b"}, "expected prompt, chosen and rejected"),
        (data.read_preferences, {"prompt": "a", "chosen": "b", "rejected": "b"}, "prefers nothing"),
        (data.read_preferences, {"chosen": "b", "rejected": "c"}, "no prompt"),
        (data.read_preferences, {"chosen": [*ASKED, GOOD], "rejected": [BAD]}, "nobody asks"),
        (data.read_rated, {"prompt": "a", "completion": "b", "label": "yes"}, "label = 'yes'"),
        (data.read_rated, {"prompt": "a", "completion": "b"}, "completion and label"),
        (data.read_tasks, {"text": "a"}, "expected a prompt"),
        (data.read_tasks, {"prompt": [GOOD]}, "nobody asks"),
    ],
)
def test_faulty_preferences_and_tasks_are_named(
    tmp_path: Path, read: Callable[..., Any], record: dict[str, Any], sentence: str
) -> None:
    """With their line, as faulty examples are."""
    with pytest.raises(DataError, match=rf"line 1 has .*{sentence}"):
        read([_lines(tmp_path / "a.jsonl", record)])
