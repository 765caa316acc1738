"""Answers judged by one judge or several, kept as they come, and how far the judges can be believed."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from moehub.answering.meter import Meter
from moehub.errors import ConfigError
from moehub.judging.agreement import agreement
from moehub.judging.asking import Comparison, bias, compare, rate
from moehub.judging.opening import Metered
from moehub.judging.subjects import Pair, Single, Subject, digest
from moehub.ledger import Ledger, portions

Open = Callable[[str], Metered]
"""Opens the model that a reference names."""


@dataclass(frozen=True)
class Judged:
    """What one judge said of every subject, in their order."""

    verdicts: list[str]
    """`yes` or `no` of a single answer; `a`, `b` or `tie` of a pair."""
    scores: list[float]
    """p(yes); of a pair p(a is better), the mean of both orders."""
    comparisons: list[Comparison] = field(default_factory=list)
    """Of pairs."""


Judgements: TypeAlias = Mapping[str, Judged]
"""Reference of a judge → what it said."""


def judge(
    subjects: Sequence[Subject],
    judges: Sequence[str],
    question: str | None,
    *,
    open_judge: Open,
    ledger: Ledger,
    on_step: Callable[[int], None] = lambda _: None,
) -> tuple[Judgements, dict[str, Meter]]:
    """Return what each judge says of every subject, and what it cost; what the ledger knows is not asked again.

    Args:
        subjects: all single, or all pairs.
        judges: references; one is open at a time, and only if there is something left to ask it.
        question: about a single answer; of pairs what makes an answer good, or None.
        open_judge: opens one.
        ledger: what was said before, and where it is kept.
        on_step: called with how many subjects were judged, those of the ledger too.

    Raises:
        ConfigError: single answers are to be judged without a question.
        MoehubError: a judge cannot be opened or asked.
    """
    if question is None and isinstance(subjects[0], Single):
        raise ConfigError('single answers are judged by a question: give one, as --question "Is the answer correct?"')
    said, meters = {}, {}
    for reference in judges:
        known = {
            entry["subject"]: entry["said"]
            for entry in ledger.entries
            if (entry.get("judge"), entry.get("question")) == (reference, question)
        }
        digests = [digest(one) for one in subjects]
        left = {name: one for name, one in zip(digests, subjects, strict=True) if name not in known}
        on_step(len(subjects) - len(left))
        if left:
            opened = open_judge(reference)
            meters[reference] = opened.meter
            for some in portions(list(left.items())):
                new = dict(zip((name for name, _ in some), _ask(opened, some, question), strict=True))
                known |= new
                key = {"judge": reference, "question": question}
                ledger.add({**key, "subject": name, "said": one} for name, one in new.items())
                on_step(len(some))
            del opened  # the next judge may need its memory
        said[reference] = _judged([known[name] for name in digests])
    return said, meters


def _ask(opened: Metered, some: Sequence[tuple[str, Subject]], question: str | None) -> list[list[float]]:
    """Return p(yes) of each, or of a pair p(the first is better) in both orders."""
    pairs = [(one.prompt, one.a, one.b) for _, one in some if isinstance(one, Pair)]
    if pairs:
        return [[one.a_first, one.b_first] for one in compare(opened, pairs, question=question)]
    singles = [(one.prompt, one.answer) for _, one in some if isinstance(one, Single)]
    return [[one] for one in rate(opened, question or "", singles)]


def _judged(said: Sequence[Sequence[float]]) -> Judged:
    if len(said[0]) == 1:
        scores = [one[0] for one in said]
        return Judged(["yes" if score > 0.5 else "no" for score in scores], scores)
    comparisons = [Comparison(*one) for one in said]
    return Judged([one.winner for one in comparisons], [one.preference for one in comparisons], comparisons)


def summary(subjects: Sequence[Subject], judgements: Judgements) -> dict[str, Any]:
    """Return what the judges said on the whole, how they agree with labels, and with each other, as JSON has it."""
    labels = [one.label for one in subjects]
    return {
        "kind": "pairs" if isinstance(subjects[0], Pair) else "answers",
        "subjects": len(subjects),
        "labelled": sum(one is not None for one in labels),
        "judges": {name: _of_judge(judged, labels) for name, judged in judgements.items()},
        "between": [
            {"judges": [one, other], **_agreement(judgements[one].verdicts, judgements[other].verdicts)}
            for one, other in itertools.combinations(judgements, 2)
        ],
    }


def _of_judge(judged: Judged, labels: Sequence[str | None]) -> dict[str, Any]:
    labelled = [(said, label) for said, label in zip(judged.verdicts, labels, strict=True) if label is not None]
    position = bias(judged.comparisons)
    kinds = ("a", "b", "tie") if judged.comparisons else ("yes", "no")
    return {
        "mean": sum(judged.scores) / len(judged.scores),
        "verdicts": {kind: judged.verdicts.count(kind) for kind in kinds},
        "position": None if position is None else position.to_dict(),
        "labels": _agreement(*zip(*labelled, strict=True)) if labelled else None,
    }


def _agreement(one: Sequence[str], other: Sequence[str]) -> dict[str, Any]:
    found = agreement(one, other)
    return {} if found is None else found.to_dict()


def records_of(subjects: Sequence[Subject], judgements: Judgements) -> list[dict[str, Any]]:
    """Return each subject's own record with `judged`: what every judge said of it."""
    found = []
    for place, subject in enumerate(subjects):
        said = {name: _said(judged, place) for name, judged in judgements.items()}
        found.append({**subject.record, "judged": said})
    return found


def _said(judged: Judged, place: int) -> dict[str, Any]:
    if not judged.comparisons:
        return {"yes": judged.scores[place], "verdict": judged.verdicts[place]}
    both = judged.comparisons[place]
    return {
        "winner": both.winner,
        "a_better": both.preference,
        "a_first": both.a_first,
        "b_first": both.b_first,
    }
