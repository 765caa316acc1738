"""`length` and `format`: what an answer looks like, whatever it says."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from moehub.errors import ConfigError
from moehub.experts.examples import Task
from moehub.experts.rewards.reward import Opener, Scores


@dataclass(frozen=True)
class Length:
    """Options of `length`, and the reward itself: 0 for a length within the band, down to −1 outside of it.

    Raises:
        ConfigError: the band is empty.
    """

    name: ClassVar[str] = "length"
    most: int = 2000
    """The longest that costs nothing."""
    least: int = 0
    """The shortest that costs nothing."""
    unit: Literal["characters", "words"] = "characters"
    slack: int = 0
    """So far outside of the band the value has fallen to −1, evenly; 0 is at once."""

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most:
            raise ConfigError(f"least = {self.least} and most = {self.most}, expected 0 ≤ least ≤ most")
        if self.slack < 0:
            raise ConfigError(f"slack = {self.slack}, expected 0 (at once) or more")

    def open(self, opener: Opener) -> "Length":  # noqa: ARG002 (it asks no model)
        """Return the reward."""
        return self

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:  # noqa: ARG002 (any task)
        """Return the value of each answer's length."""
        return [self._value(len(answer.split()) if self.unit == "words" else len(answer)) for answer in answers]

    def _value(self, length: int) -> float:
        outside = max(self.least - length, length - self.most, 0)
        return -min(1.0, outside / max(self.slack, 1)) if outside else 0.0


@dataclass(frozen=True)
class Format:
    """Options of `format`, and the reward itself: whether an answer fits a regular expression.

    Raises:
        ConfigError: it is none.
    """

    name: ClassVar[str] = "format"
    pattern: str
    """Python's; a dot is any character, line ends too."""
    whole: bool = True
    """Whether the whole answer, without blanks around it, has to fit; else any part of it."""
    right: float = 1.0
    wrong: float = 0.0

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern, re.DOTALL)
        except (re.error, OverflowError, RecursionError) as error:
            raise ConfigError(f"pattern = {self.pattern!r} is no regular expression: {error}") from error

    def open(self, opener: Opener) -> "Format":  # noqa: ARG002 (it asks no model)
        """Return the reward."""
        return self

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:  # noqa: ARG002 (any task)
        """Return `right` or `wrong` for each answer."""
        pattern = re.compile(self.pattern, re.DOTALL)
        fits = pattern.fullmatch if self.whole else pattern.search
        return [self.right if fits(answer.strip()) else self.wrong for answer in answers]
