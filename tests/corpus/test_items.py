from pathlib import Path

import pytest

from moehub.corpus.items import Kind, is_empty, item_of, read
from moehub.errors import DataError
from moehub.experts.records import Record
from tests.corpus.texts import write

TALK = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [
        ({"text": "A document."}, "document", "A document."),
        ({"text": "A document.", "label": True}, "document", "A document."),
        ({"messages": TALK}, "conversation", "Why?\nBecause."),
        ({"messages": TALK[:1]}, "task", "Why?"),
        ({"instruction": "Add", "input": "1 and 2", "output": "3"}, "instruction", "Add\n\n1 and 2\n3"),
        ({"prompt": "Once", "completion": " upon"}, "completion", "Once\n upon"),
        ({"prompt": "Once", "completion": " upon", "label": False}, "rated", "Once\n upon"),
        ({"prompt": "Once", "chosen": "yes", "rejected": "no"}, "preference", "Once\nyes\nno"),
        ({"prompt": TALK[:1], "chosen": "yes", "rejected": "no"}, "preference", "Why?\nyes\nno"),
        ({"prompt": "2 + 2", "answer": "4"}, "task", "2 + 2"),
        ({"instruction": "Add 2 and 2"}, "task", "Add 2 and 2"),
    ],
)
def test_fields_show_what_a_record_is(value: object, form: str, text: str) -> None:
    """Its format, and all that it says."""
    item = item_of(Record(value, "f", ""))
    assert (item.form, item.text) == (form, text)


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"text": "A document."}, "preference"), ({"prompt": "2 + 2"}, "text"), ({"prompt": "2 + 2"}, "rated")],
)
def test_a_kind_that_was_asked_for_decides(value: object, kind: Kind) -> None:
    """A record of another kind is none."""
    with pytest.raises(DataError, match="has the fields"):
        item_of(Record(value, "f", ""), kind)


def test_a_preference_is_two_rated_answers() -> None:
    """Where those are asked for."""
    item = item_of(Record({"prompt": "Once", "chosen": "yes", "rejected": "no"}, "f", ""), "rated")
    assert (item.form, len(item.says), item.text) == ("preference", 2, "Once\nyes\nOnce\nno")


def test_records_that_are_none_are_all_named(tmp_path: Path) -> None:
    """With file and line, ten of them, and how to go on."""
    file = write(tmp_path / "a.jsonl", [{"text": "good"}, *({"title": "bad"} for _ in range(12))])
    with pytest.raises(DataError, match=r"12 record\(s\) .* `moehub data check --clean FILE`") as error:
        read([file])
    lines = str(error.value).splitlines()
    assert (len(lines), lines[-1]) == (12, "  - and 2 more")
    assert f"{file}, line 2: has the fields title" in lines[1]


@pytest.mark.parametrize("value", [{}, {"text": " "}, {"instruction": "Add", "output": ""}, {"messages": []}, "", None])
def test_empty_records_are_told_from_broken_ones(value: object) -> None:
    """They have the fields of a record, or none, and nothing in them."""
    assert is_empty(value)


@pytest.mark.parametrize(
    "value", [{"title": "x"}, {"text": 3}, 7, DataError("is no JSON"), {"messages": [{"role": "x"}]}]
)
def test_broken_records_are_not_empty(value: object) -> None:
    """Something is there, and cannot be read."""
    assert not is_empty(value)
