"""`exact`: the answer is the one that the task names."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from moehub.errors import ConfigError
from moehub.experts.examples import Task
from moehub.experts.rewards.matching import matches
from moehub.experts.rewards.reward import OfField, Opener, Scores


@dataclass(frozen=True)
class Exact(OfField):
    """Options of `exact`, and the reward itself.

    Raises:
        ConfigError: the tolerance is no share.
    """

    name: ClassVar[str] = "exact"
    field: str = "answer"
    """The task's field that holds the right answer, or a list of right ones."""
    right: float = 1.0
    wrong: float = 0.0
    tolerance: float = 0.0
    """Share of the expected number by which a number may be off."""
    anywhere: bool = False
    """Whether a text may stand among others in the last line, or after a mark such as `####`."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < 1:
            raise ConfigError(f"tolerance = {self.tolerance}, expected a share of at least 0 and less than 1")

    def open(self, opener: Opener) -> "Exact":  # noqa: ARG002 (it asks no model)
        """Return the reward."""
        return self

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with an expected answer, or None."""
        return complaint(value)

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:
        """Return `right` or `wrong` for each answer, None for tasks without an expected one."""
        return [
            (self.right if self.is_right(task, answer) else self.wrong) if self.known(task) else None
            for task, answer in zip(tasks, answers, strict=True)
        ]

    def is_right(self, task: Task, answer: str) -> bool:
        """Return whether an answer is the expected one."""
        return matches(answer, task.fields[self.field], tolerance=self.tolerance, anywhere=self.anywhere)


def complaint(value: Any) -> str | None:
    """Return what is wrong with an expected answer, as the end of a sentence, or None."""
    one_of = value if isinstance(value, list) else [value]
    if not one_of or not all(_is_answer(one) for one in one_of):
        return f"is {str(value)[:40]!r}, expected a text, a number, or a list of those"
    return None


def _is_answer(value: Any) -> bool:
    if isinstance(value, str):
        return bool(value.strip())
    return isinstance(value, int | float) and math.isfinite(value)
