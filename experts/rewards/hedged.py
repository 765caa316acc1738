"""`hedged`: being sure pays where the answer is right, and costs where it is wrong."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from moehub.experts.examples import Task
from moehub.experts.rewards.exact import complaint
from moehub.experts.rewards.matching import matches
from moehub.experts.rewards.reward import OfField, Opener, Scores

HEDGES = (
    "i think", "i believe", "i guess", "i suppose", "i'm not sure", "i am not sure", "not certain", "maybe", "perhaps",
    "possibly", "probably", "likely", "might", "may be", "could be", "it seems", "appears to", "as far as i know",
    "if i remember", "if i recall", "approximately", "my best guess",
)  # fmt: skip
IGNORANCE = (
    "i don't know", "i do not know", "i'm unable to answer", "i am unable to answer", "i cannot answer",
    "i can't answer", "i have no idea", "no idea", "i'm not able to answer", "it is impossible to say",
)  # fmt: skip


@dataclass(frozen=True)
class Hedged(OfField):
    """Options of `hedged`, and the reward itself: a value for each of five kinds of answer."""

    name: ClassVar[str] = "hedged"
    field: str = "answer"
    """The task's field that holds the right answer, or a list of right ones."""
    correct: float = 1.0
    hedged_correct: float = 0.7
    uninformative: float = 0.0
    hedged_wrong: float = -0.3
    wrong: float = -1.0
    hedges: tuple[str, ...] = HEDGES
    """Phrases that show doubt; case does not matter."""
    ignorance: tuple[str, ...] = IGNORANCE
    """Phrases that decline to answer."""
    tolerance: float = 0.0
    """Share of the expected number by which a number may be off."""
    anywhere: bool = True
    """Whether the right text may stand in a sentence."""

    def open(self, opener: Opener) -> "Hedged":  # noqa: ARG002 (it asks no model)
        """Return the reward."""
        return self

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with an expected answer, or None."""
        return complaint(value)

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:
        """Return the value of each answer's kind, None for tasks without an expected one."""
        return [
            self._value(task.fields[self.field], answer) if self.known(task) else None
            for task, answer in zip(tasks, answers, strict=True)
        ]

    def _value(self, expected: Any, answer: str) -> float:
        right = matches(answer, expected, tolerance=self.tolerance, anywhere=self.anywhere)
        text = answer.replace("’", "'")
        declines = not text.strip() or bool(self._ignorance.search(text))
        if right:
            return self.hedged_correct if declines or self._hedges.search(text) else self.correct
        if declines:
            return self.uninformative
        return self.hedged_wrong if self._hedges.search(text) else self.wrong

    @cached_property
    def _hedges(self) -> re.Pattern[str]:
        return _any_of(self.hedges)

    @cached_property
    def _ignorance(self) -> re.Pattern[str]:
        return _any_of(self.ignorance)


def _any_of(phrases: Sequence[str]) -> re.Pattern[str]:
    """Return what finds any of the phrases as whole words; without phrases, nothing."""
    found = "|".join(r"\s+".join(map(re.escape, phrase.split())) for phrase in phrases if phrase.strip())
    return re.compile(rf"(?<!\w)(?:{found})(?!\w)" if found else r"(?!)", re.IGNORECASE)
