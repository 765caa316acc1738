"""Answers judged by models."""

from pathlib import Path
from typing import Any

import pytest

from moehub.errors import ConfigError, DataError
from moehub.judging import scoring, subjects
from moehub.judging.subjects import Pair, Single, Subject
from moehub.ledger import Ledger, line
from tests.judging.opinions import Opinionated, by_length, opener, shown, the_first

QUESTION = "Is it long?"


def long(question: str) -> float:
    return 0.9 if len(shown(question)[0]) > 3 else 0.1


def file_of(folder: Path, *entries: dict[str, Any]) -> list[Path]:
    path = folder / "answers.jsonl"
    path.write_text("".join(map(line, entries)), encoding="utf-8")
    return [path]


def read(folder: Path, *entries: dict[str, Any]) -> list[Subject]:
    return subjects.read(file_of(folder, *entries))


SINGLES = [{"prompt": f"p{number}", "completion": "x" * number, "label": number > 2} for number in range(1, 7)]


def test_single_answers_are_read_in_every_form(tmp_path: Path) -> None:
    """Completion, output and messages, with labels in every spelling."""
    found = read(
        tmp_path,
        {"prompt": "p", "completion": "c", "label": True},
        {"instruction": "i", "input": "n", "output": "o", "label": "No"},
        {"messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}], "label": 1},
        {"prompt": [{"role": "user", "content": "u"}], "completion": [{"role": "assistant", "content": "l"}]},
    )
    assert all(isinstance(one, Single) for one in found)
    assert [(one.answer, one.label) for one in found if isinstance(one, Single)] == [
        ("c", "yes"),
        ("o", "no"),
        ("a", "yes"),
        ("l", None),
    ]


def test_pairs_are_read_in_every_form(tmp_path: Path) -> None:
    """The chosen answer is a, and known to be right; of a and b only what the label says is known."""
    asked, one, other = (
        {"role": role, "content": text} for role, text in (("user", "u"), ("assistant", "x"), ("assistant", "y"))
    )
    found = read(
        tmp_path,
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {"chosen": [asked, one], "rejected": [asked, other]},
        {"prompt": "p", "a": "x", "b": "y", "label": "tie"},
        {"prompt": "p", "a": "x", "b": "y"},
    )
    assert [(one.a, one.b, one.label) for one in found if isinstance(one, Pair)] == [
        ("c", "r", "a"),
        ("x", "y", "a"),
        ("x", "y", "tie"),
        ("x", "y", None),
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"prompt": "p"}, "has no answer"),
        ({"prompt": "p", "completion": 3}, "has completion = '3', expected a text"),
        ({"prompt": "p", "completion": "c", "label": "maybe"}, "has label = 'maybe', expected true or false"),
        ({"prompt": "p", "a": "x", "b": "y", "label": "c"}, "has label = 'c', expected a, b or tie"),
        ({"completion": "c"}, "expected a prompt"),
        ({"messages": [{"role": "user", "content": "u"}]}, "no message of the assistant"),
    ],
)
def test_records_without_answers_are_named(tmp_path: Path, entry: dict[str, Any], said: str) -> None:
    """With file and line."""
    with pytest.raises(DataError, match=said) as caught:
        read(tmp_path, {"prompt": "p", "completion": "c"}, entry)
    assert "line 2" in str(caught.value)


def test_single_answers_and_pairs_are_not_mixed(tmp_path: Path) -> None:
    """They are judged by different questions."""
    with pytest.raises(DataError, match="1 single answers and 1 pairs"):
        read(tmp_path, {"prompt": "p", "completion": "c"}, {"prompt": "p", "a": "x", "b": "y"})


def test_a_judge_is_measured_by_labels_and_by_the_other_judge(tmp_path: Path) -> None:
    """One says yes from four letters on, the labels from three, the other always: κ by hand."""
    found = read(tmp_path, *SINGLES)
    judges = opener(strict=Opinionated(believes=long), kind=Opinionated(believes=the_first))
    said, meters = scoring.judge(found, ["strict", "kind"], QUESTION, open_judge=judges, ledger=Ledger(None))
    summary = scoring.summary(found, said)
    strict = summary["judges"]["strict"]
    assert strict["verdicts"] == {"yes": 3, "no": 3}
    assert strict["mean"] == pytest.approx(0.5)
    assert strict["labels"]["raw"] == pytest.approx(5 / 6)
    # Expected by chance: 1/2 · 4/6 + 1/2 · 2/6.
    assert strict["labels"]["kappa"] == pytest.approx((5 / 6 - 1 / 2) / (1 - 1 / 2))
    assert summary["judges"]["kind"]["labels"]["kappa"] == pytest.approx(0)
    assert summary["between"][0] | {"low": None, "high": None} == {
        "judges": ["strict", "kind"],
        "items": 6,
        "raw": 0.5,
        "kappa": pytest.approx(0),
        "low": None,
        "high": None,
    }
    assert meters["strict"].requests == 6


def test_pairs_are_judged_in_both_orders_and_the_bias_is_told(tmp_path: Path) -> None:
    """A judge who looks at places alone makes ties of all."""
    found = read(tmp_path, {"prompt": "p", "chosen": "long", "rejected": "s"}, {"prompt": "p", "a": "s", "b": "longer"})
    judges = opener(fair=Opinionated(believes=by_length), led=Opinionated(believes=the_first))
    said, _ = scoring.judge(found, ["fair", "led"], None, open_judge=judges, ledger=Ledger(None))
    summary = scoring.summary(found, said)
    assert summary["judges"]["fair"]["verdicts"] == {"a": 1, "b": 1, "tie": 0}
    assert summary["judges"]["led"]["verdicts"] == {"a": 0, "b": 0, "tie": 2}
    assert summary["judges"]["led"]["position"] == {"towards_first": pytest.approx(0.3), "decided": 1.0}
    assert (summary["labelled"], summary["judges"]["fair"]["labels"]["raw"]) == (1, 1.0)
    record = scoring.records_of(found, said)[1]
    assert record["judged"]["fair"]["winner"] == "b"
    assert (record["a"], record["judged"]["led"]["a_first"]) == ("s", 0.8)


def test_what_was_judged_is_not_asked_again(tmp_path: Path) -> None:
    """A kill after 20 of 40 answers costs those that were not yet kept; equal answers are asked about once."""
    entries = [{"prompt": f"p{number % 40}", "completion": "x" * (number % 40)} for number in range(45)]
    entries = [{**one, "completion": one["completion"] or "none"} for one in entries]
    found = read(tmp_path, *entries)
    first, second = Opinionated(believes=long), Opinionated(believes=long)
    first.dies_after = 20
    path = tmp_path / "kept.jsonl"
    with pytest.raises(KeyboardInterrupt):
        scoring.judge(found, ["it"], QUESTION, open_judge=opener(it=first), ledger=Ledger(path))
    done: list[int] = []
    said, _ = scoring.judge(
        found, ["it"], QUESTION, open_judge=opener(it=second), ledger=Ledger(path), on_step=done.append
    )
    assert len(second.asked) == 40 - 16
    assert said["it"].scores == [long(one) for one in _whole(found)]
    third = Opinionated(believes=long)
    scoring.judge(found, ["it"], "Is it other?", open_judge=opener(it=third), ledger=Ledger(path))
    assert len(third.asked) == 40


def _whole(found: list[Subject]) -> list[str]:
    return [f"<answer>\n{one.answer}\n</answer>" for one in found if isinstance(one, Single)]


def test_single_answers_need_a_question(tmp_path: Path) -> None:
    """The sentence shows one."""
    with pytest.raises(ConfigError, match="--question"):
        scoring.judge(read(tmp_path, *SINGLES), ["it"], None, open_judge=opener(), ledger=Ledger(None))
