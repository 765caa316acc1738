"""What the gate says about an expert."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moehub.errors import AdmissionError, listed


@dataclass(frozen=True)
class Refusal:
    """One reason not to admit an expert."""

    code: str
    """Stable: the code of the check that found it."""
    step: int
    sentence: str
    cure: str

    def __str__(self) -> str:
        """Return it as one line for a person."""
        return f"[{self.code}] {self.sentence}: {self.cure}"


@dataclass(frozen=True)
class Skipped:
    """A check that was not made, and why."""

    code: str
    step: int
    reason: str


@dataclass(frozen=True)
class Verdict:
    """What was found out about one expert."""

    subject: str
    """The expert's folder or reference, for people."""
    refusals: tuple[Refusal, ...]
    skipped: tuple[Skipped, ...]
    """Checks that could not be made here; those of later steps, after a refusal, are not among them."""
    seconds: Mapping[str, float]
    """Code of each check that ran → seconds it took."""

    @property
    def admitted(self) -> bool:
        """Whether nothing was found against it."""
        return not self.refusals

    def __add__(self, later: "Verdict") -> "Verdict":
        """Return what this and a later look at the same expert found out together."""
        return dataclasses.replace(
            self,
            refusals=self.refusals + later.refusals,
            skipped=self.skipped + later.skipped,
            seconds={**self.seconds, **later.seconds},
        )

    def require(self) -> None:
        """Raise if the expert is not admitted.

        Raises:
            AdmissionError: every refusal with its code and cure, listed.
        """
        if self.refusals:
            raise AdmissionError(listed(f"{self.subject} is not admitted:", [str(one) for one in self.refusals]))

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as JSON holds it."""
        return {"admitted": self.admitted, **dataclasses.asdict(self)}
