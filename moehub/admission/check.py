"""One check of the gate: a function that looks at an expert and yields what is wrong with it."""

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moehub.admission.at_hand import AtHand
    from moehub.admission.policy import Policy
    from moehub.admission.subject import Subject

Examine = Callable[["Subject", "AtHand", "Policy"], Iterator["Fault"]]


@dataclass(frozen=True)
class Fault:
    """What one check found."""

    sentence: str
    """What was wrong, the value, and what was expected."""
    cure: str
    """What its publisher, or whoever was offered it, can do."""

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Return the fault that an error's text tells, which ends in its cure behind a colon."""
        sentence, colon, cure = text.rpartition(": ")
        return cls(sentence, cure) if colon else cls(text, "publish the expert again as moehub wrote it")


class NotAtHandError(Exception):
    """Raised by a check that cannot be made here; its text says what is missing, and how to have it."""


@dataclass(frozen=True)
class Check:
    """A check and when it runs."""

    code: str
    """The function's name with dashes: the stable code of the refusal."""
    step: int
    """1 (cheapest) … 9; a step runs only if all before it found nothing."""
    examine: Examine
    """Yields the faults.

    Raises:
        NotAtHandError: something is needed that is not at hand.
    """

    @property
    def summary(self) -> str:
        """The first line of the function's docstring: what an admitted expert has."""
        return (self.examine.__doc__ or "").strip().splitlines()[0]


def check(step: int) -> Callable[[Examine], Check]:
    """Make a check of the function below; its docstring says what an admitted expert has."""

    def made(examine: Examine) -> Check:
        return Check(examine.__name__.replace("_", "-"), step, examine)

    return made


def without(checks: tuple[Check, ...], code: str) -> tuple[Check, ...]:
    """Return the checks with one of them switched off: it finds nothing. For tests of the gate itself."""
    return tuple(dataclasses.replace(one, examine=lambda *_: iter(())) if one.code == code else one for one in checks)
