import json
from pathlib import Path

import pytest

from moehub.corpus.checking import Demands, Report, check
from moehub.errors import DataError
from tests.builders import tiny_base
from tests.corpus.texts import text, write


def faults(report: Report) -> dict[str, int]:
    return {name: count for name, count in report.faults.items() if count}


def test_every_fault_is_found_in_one_pass(tmp_path: Path) -> None:
    """Each with file, line and reason; what has none is clean."""
    item = text(9, 20)
    evaluation = write(tmp_path / "eval.jsonl", [{"prompt": "short one"}, {"prompt": item}])
    source = tmp_path / "a.jsonl"
    write(
        source,
        [
            {"text": text(1)},
            {"text": 3},
            {"text": "  "},
            {"text": text(1).upper()},
            {"prompt": text(2, 300), "completion": "end"},
            {"text": "write to jane@acme.io or call +49 170 4839271"},
            {"text": f"It asked: {item}."},
            {"text": text(3)},
        ],
    )
    with source.open("a") as file:
        file.write("{not json\n")
    report = check([source], Demands(context=100, against=[evaluation]))
    assert report.examples == {
        "broken": [
            f"{source}, line 2: has text = '3', expected a text",
            f"{source}, line 9: is no JSON (Expecting property name enclosed in double quotes at column 2)",
        ],
        "empty": [f"{source}, line 3: has an empty text"],
        "duplicate": [f"{source}, line 4: repeats {source}, line 1"],
        "too_long": [f"{source}, line 5: has about {report.longest} tokens, more than 100"],
        "private": [f"{source}, line 6: e-mail ja… (12 characters), phone +4… (15 characters)"],
        "leaked": [f"{source}, line 7: holds the evaluation item of {evaluation}, line 2"],
    }
    assert faults(report) == {name: 2 if name == "broken" else 1 for name in report.examples}
    assert [record.place for record in report.clean] == ["line 1", "line 8"]
    assert report.is_bad


def test_a_record_is_private_wherever_it_is(tmp_path: Path) -> None:
    """In a field that nobody learns from too; what was found is counted by kind and never shown."""
    source = write(tmp_path / "a.jsonl", [{"text": "fine", "author": {"mail": ["jane@acme.io", "jo@acme.io"]}}])
    report = check([source])
    assert (faults(report), dict(report.private)) == ({"private": 1}, {"e-mail": 2})
    assert "jane@acme.io" not in json.dumps(report.to_dict())


def test_faulty_files_do_not_end_it(tmp_path: Path) -> None:
    """All are named, and the others are checked."""
    (tmp_path / "latin.txt").write_bytes("Müller".encode("latin-1"))
    (tmp_path / "table.csv").write_text("a,b")
    (tmp_path / "empty.jsonl").write_text("")
    good = write(tmp_path / "good.jsonl", [{"text": text(1)}])
    names = [tmp_path / name for name in ("latin.txt", "table.csv", "empty.jsonl", "missing.txt")]
    report = check([*names, good])
    assert list(report.unreadable) == [str(name) for name in names]
    assert "is not UTF-8: byte 0xfc" in report.unreadable[str(names[0])]
    assert (report.files, len(report.clean), report.is_bad) == ({str(good): 1}, 1, True)


def test_ten_are_named_and_all_counted(tmp_path: Path) -> None:
    """Of each fault."""
    report = check([write(tmp_path / "a.jsonl", [{"text": "again"}] * 30)])
    assert (faults(report), len(report.examples["duplicate"])) == ({"duplicate": 29}, 10)


def test_copies_are_found_between_files(tmp_path: Path) -> None:
    """And where a file is given twice."""
    source = write(tmp_path / "a.jsonl", [{"text": text(1)}])
    assert faults(check([source, source])) == {"duplicate": 1}


def test_a_kind_holds_for_all(tmp_path: Path) -> None:
    """Without one, every record is what its fields show."""
    source = write(tmp_path / "a.jsonl", [{"text": "a"}, {"prompt": "p", "chosen": "x", "rejected": "y"}])
    assert dict(check([source]).forms) == {"document": 1, "preference": 1}
    report = check([source], Demands("preference"))
    assert (dict(report.forms), faults(report)) == ({"preference": 1}, {"broken": 1})


def test_a_base_counts_its_own_tokens(tmp_path: Path) -> None:
    """And brings the context; documents may be of any length, since they are cut into windows."""
    base = tiny_base(tmp_path / "base")
    source = write(
        tmp_path / "a.jsonl",
        [
            {"text": "a document " * 500},
            {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "rent " * 400}]},
            {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "rent", "rejected": "rent " * 400},
            {"prompt": "short", "completion": "one"},
            {"prompt": [{"role": "user", "content": "rent " * 400}], "answer": "yes"},
            {"messages": [{"role": "pirate", "content": "Hi"}, {"role": "assistant", "content": "No"}]},
        ],
    )
    report = check([source], Demands(base=str(base)))
    assert faults(report) == {"too_long": 3, "broken": 1}
    assert [line.partition(":")[0] for line in report.examples["too_long"]] == [
        f"{source}, line {n}" for n in (2, 3, 5)
    ]
    assert "tokens, more than 256" in report.examples["too_long"][0]
    assert "chat template refuses" in report.examples["broken"][0]


def test_an_evaluation_that_cannot_be_read_ends_it(tmp_path: Path) -> None:
    """Since nothing could be said about leaks."""
    with pytest.raises(DataError, match="does not exist"):
        check([write(tmp_path / "a.jsonl", [{"text": "a"}])], Demands(against=[tmp_path / "none.jsonl"]))


def test_nothing_wrong_is_not_bad(tmp_path: Path) -> None:
    """And all is clean."""
    report = check([write(tmp_path / "a.jsonl", [{"text": text(1)}, {"text": text(2)}])])
    assert (report.is_bad, len(report.clean), report.characters) == (False, 2, len(text(1)) + len(text(2)))
