import json
from pathlib import Path

import pytest

from moehub.corpus.dedup import Others, dedup
from moehub.corpus.signatures import read_secret
from moehub.errors import ConfigError, DataError
from tests.corpus.texts import changed, documents, read, text, write


def numbers(path: Path) -> list[object]:
    return [record["number"] for record in read(path)]


def test_the_first_of_several_stays(tmp_path: Path) -> None:
    """Over all files, with all of its fields."""
    first = documents(tmp_path / "a.jsonl", [text(1), text(2), text(1).upper()])
    second = documents(tmp_path / "b.jsonl", [changed(text(2), 1), text(3)])
    outcome = dedup([first, second])
    outcome.write(tmp_path / "out.jsonl", report=tmp_path / "report.jsonl")
    assert outcome.to_dict() == {"records": 5, "kept": 3, "exact": 1, "near": 1, "theirs": 0}
    assert read(tmp_path / "out.jsonl") == [
        {"text": text(1), "number": 0},
        {"text": text(2), "number": 1},
        {"text": text(3), "number": 1},
    ]
    report = read(tmp_path / "report.jsonl")
    assert report[0] == {"record": f"{first}, line 3", "why": "exact", "kept": f"{first}, line 1", "similarity": 1.0}
    assert (report[1]["record"], report[1]["kept"]) == (f"{second}, line 1", f"{first}, line 2")
    assert text(2).split()[0] not in json.dumps(report)


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    """Records and signatures."""
    source = documents(
        tmp_path / "a.jsonl", [changed(text(number % 9), number % 5, seed=number) for number in range(60)]
    )
    for run in ("1", "2"):
        dedup([source]).write(tmp_path / f"{run}.jsonl", tmp_path / f"{run}.sig", tmp_path / f"{run}.report")
    for ending in ("jsonl", "sig", "report"):
        assert (tmp_path / f"1.{ending}").read_bytes() == (tmp_path / f"2.{ending}").read_bytes()


def test_preferences_are_compared_whole(tmp_path: Path) -> None:
    """Two pairs of one prompt are two records."""
    prompt, answers = text(1, 8), [text(seed, 30) for seed in (2, 3, 4)]
    pairs = [{"prompt": prompt, "chosen": answers[0], "rejected": answers[one]} for one in (1, 2, 1)]
    assert dedup([write(tmp_path / "a.jsonl", pairs)]).to_dict()["kept"] == 2


def test_those_who_came_first_keep_theirs(tmp_path: Path) -> None:
    """What is like theirs is dropped here; nobody sees a text."""
    theirs = documents(tmp_path / "a.jsonl", [text(1, 300), text(2)])
    dedup([theirs]).write(None, tmp_path / "a.sig")
    mine = documents(tmp_path / "b.jsonl", [text(3), changed(text(1, 300), 3), text(2)])
    outcome = dedup([mine], others=Others(before=[tmp_path / "a.sig"]))
    assert [item.record.value["number"] for item in outcome.kept] == [0]
    assert [one.to_dict() for one in outcome.dropped] == [
        {"record": f"{mine}, line {line}", "why": "theirs"} for line in (2, 3)
    ]


def test_contributors_agree_without_talking(tmp_path: Path) -> None:
    """Each has all signatures, nobody another's text: what several have stays with one, the rest with its owner."""
    (tmp_path / "salt").write_text("a long secret that nobody guesses")
    secret = read_secret(tmp_path / "salt")
    shared = [text(seed) for seed in (100, 101, 102)]
    for who in range(3):
        own = [text(10 * who + number) for number in range(4)]
        source = documents(tmp_path / f"{who}.jsonl", [*own, *(one if who else one.upper() for one in shared)])
        dedup([source], others=Others(secret=secret)).write(tmp_path / f"{who}.once.jsonl", tmp_path / f"{who}.sig")
    files = [tmp_path / f"{who}.sig" for who in range(3)]
    kept = [
        [item.text for item in dedup([tmp_path / f"{who}.once.jsonl"], others=Others((), files, secret)).kept]
        for who in range(3)
    ]
    assert sorted(map(len, kept)) == [4, 4, 7]
    together = [one.lower() for some in kept for one in some]
    assert len(set(together)) == len(together) == 15


def test_my_own_file_may_be_left_out(tmp_path: Path) -> None:
    """It is made of the same texts again."""
    for who in "ab":
        source = documents(tmp_path / f"{who}.jsonl", [text(1), text(ord(who))])
        dedup([source]).write(None, tmp_path / f"{who}.sig")
    both = [tmp_path / "a.sig", tmp_path / "b.sig"]
    for who, other in (("a", both[1:]), ("b", both[:1])):
        one, another = (
            dedup([tmp_path / f"{who}.jsonl"], others=Others(among=some)).to_dict() for some in (both, other)
        )
        assert one == another


def test_records_that_are_none_stop_it(tmp_path: Path) -> None:
    """With what to do about them; nothing to read is said too."""
    with pytest.raises(DataError, match=r"1 record\(s\) are none to learn from; `moehub data check --clean"):
        dedup([write(tmp_path / "a.jsonl", [{"text": "one"}, {"title": "x"}])])
    (tmp_path / "b.json").write_text("[]")
    with pytest.raises(DataError, match="there are no records in"):
        dedup([tmp_path / "b.json"])
    with pytest.raises(ConfigError, match="the threshold is 2"):
        dedup([tmp_path / "b.json"], 2)
