import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub.cli import main
from tests.corpus.texts import changed, documents, read, text, write


def moehub(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten records, of which one is a copy and one nearly so."""
    return documents(tmp_path / "a.jsonl", [*(text(seed) for seed in range(8)), text(1).upper(), changed(text(2), 1)])


def test_check_prints_a_table(source: Path) -> None:
    """What was found, with the first of each."""
    result = moehub("check", source)
    assert result.exit_code == 0
    assert "exact duplicates" in result.stdout
    assert f"exact duplicates: {source}, line 9: repeats {source}, line 2" in result.stdout


def test_check_writes_what_is_clean(source: Path, tmp_path: Path) -> None:
    """And exits with 1 where --strict asks for it; the report is JSON for programs."""
    result = moehub("check", source, tmp_path / "none.txt", "--strict", "--json", "--clean", tmp_path / "clean.jsonl")
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert (report["records"], report["clean"], report["faults"]["duplicate"]) == (10, 9, 1)
    assert list(report["unreadable"]) == [str(tmp_path / "none.txt")]
    assert len(read(tmp_path / "clean.jsonl")) == 9
    assert moehub("check", tmp_path / "clean.jsonl", "--strict").exit_code == 0


def test_check_looks_for_evaluation_items(source: Path, tmp_path: Path) -> None:
    """As many words in a row as one says."""
    items = write(tmp_path / "eval.jsonl", [{"text": " ".join(text(3).split()[:5])}])
    found = json.loads(moehub("check", source, "--against", items, "--words", 5, "--json").stdout)
    assert found["examples"]["leaked"] == [f"{source}, line 4: holds the evaluation item of {items}, line 1"]


def test_dedup_writes_what_stays(source: Path, tmp_path: Path) -> None:
    """With signatures and a report."""
    places = tmp_path / "out.parquet", tmp_path / "out.sig", tmp_path / "dropped.jsonl"
    result = moehub("dedup", source, "--output", places[0], "--signatures", places[1], "--report", places[2], "--json")
    assert json.loads(result.stdout) == {"records": 10, "kept": 8, "exact": 1, "near": 1, "theirs": 0}
    assert [one["why"] for one in read(places[2])] == ["exact", "near"]
    again = moehub("dedup", source, "--against", places[1], "--dry-run")
    assert (again.exit_code, "kept by other contributors" in again.stdout) == (0, True)


def test_a_dry_run_writes_nothing(source: Path, tmp_path: Path) -> None:
    """And says what would be."""
    for arguments in (
        ("dedup", source, "--output", tmp_path / "o.jsonl", "--signatures", tmp_path / "o.sig"),
        ("mix", f"a={source}", "--output", tmp_path / "o.jsonl"),
        ("split", source, "--train", tmp_path / "o.jsonl", "--test", tmp_path / "p.jsonl"),
    ):
        result = moehub(*arguments, "--dry-run", "--json")
        assert (result.exit_code, json.loads(result.stdout)["records"]) == (0, 10)
    assert list(tmp_path.iterdir()) == [source]


def test_mix_says_which_shares_were_reached(source: Path, tmp_path: Path) -> None:
    """A source may be several files; a note says who had no more."""
    more = documents(tmp_path / "b.jsonl", [text(seed) for seed in range(50, 80)])
    result = moehub(
        "mix", f"a={source}:1", f"b={more}:3", f"b={more}", "--records", 60, "--output", tmp_path / "o.jsonl"
    )
    assert (result.exit_code, len(read(tmp_path / "o.jsonl"))) == (0, 60)
    assert "note: a gave all that it has" in result.stderr
    assert [word for word in result.stdout.split() if word.endswith("%") or word[0].isdigit()]
    shares = json.loads(moehub("mix", f"a={source}:1", f"b={more}:3", "--tokens", 500, "--dry-run", "--json").stdout)
    assert [round(one["asked"], 2) for one in shares["sources"]] == [0.25, 0.75]


def test_split_parts_records(source: Path, tmp_path: Path) -> None:
    """Two sides, or three."""
    sides = [tmp_path / name for name in ("t.jsonl", "e.jsonl", "v.jsonl")]
    options = ("--train", sides[0], "--test", sides[1], "--valid", sides[2], "--share", 0.2, "--json")
    counts = json.loads(moehub("split", source, *options).stdout)
    assert [counts[name] for name in ("train", "test", "valid")] == [len(read(side)) for side in sides]
    assert (counts["records"], counts["groups"]) == (10, 8)


def test_text_may_come_in_on_standard_input(tmp_path: Path) -> None:
    """As it does in training."""
    records = "".join(json.dumps({"text": one}) + "\n" for one in (text(1), text(1)))
    result = CliRunner().invoke(main, ["data", "dedup", "-", "--output", str(tmp_path / "o.jsonl")], input=records)
    assert (result.exit_code, len(read(tmp_path / "o.jsonl"))) == (0, 1)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("dedup", "a.jsonl"), "say what is to be written"),
        (("dedup", "a.jsonl", "--output", "a.jsonl"), "is named twice"),
        (("dedup", "a.jsonl", "--output", "a.csv"), "has the ending '.csv'"),
        (("dedup", "a.jsonl", "--output", "b.jsonl", "--threshold", "80"), "the threshold is 80"),
        (("check", "a.jsonl", "--clean", "a.jsonl"), "is named twice"),
        (("mix", "a.jsonl", "--output", "o.jsonl"), "'a.jsonl' is no NAME=FILE[:WEIGHT]"),
        (("mix", "a=a.jsonl:-1", "--output", "o.jsonl"), "has the weight -1"),
        (("mix", "a=a.jsonl"), "--output is missing"),
        (("split", "a.jsonl", "--train", "t.jsonl"), "--train and --test are missing"),
        (("split", "a.jsonl", "--train", "t.jsonl", "--test", "t.jsonl"), "is named twice"),
        (("split", "a.jsonl", "--dry-run", "--share", "3"), "the share is 3"),
    ],
)
def test_bad_usage_is_one_sentence(
    source: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], sentence: str
) -> None:
    """With exit code 2, and nothing is written."""
    monkeypatch.chdir(source.parent)
    result = moehub(*arguments)
    assert (result.exit_code, sentence in result.stderr) == (2, True), result.stderr
    assert list(source.parent.iterdir()) == [source]


def test_what_cannot_be_read_ends_with_1(tmp_path: Path) -> None:
    """In one sentence."""
    result = moehub("split", tmp_path / "none.jsonl", "--dry-run")
    assert (result.exit_code, "does not exist" in result.stderr) == (1, True)
