"""What a trial of strangers' code may cost, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from moehub.errors import ConfigError, listed

Tests: TypeAlias = str | Sequence[str]
"""Python that tests the code (`moehub.sandbox.examiner` says what a test is), or a list, each text of which is one."""
Status = Literal["passed", "failed", "timeout", "memory", "output", "refused"]
_LEAST_MEMORY = 64 << 20


@dataclass(frozen=True)
class Limits:
    """What one trial may cost.

    Raises:
        ConfigError: a limit is too small; all that are, are listed.
    """

    seconds: float = 10.0
    """Wall time; processor time is limited too."""
    memory: int = 512 << 20
    """Bytes of address space of each of the two processes, Python's own included."""
    disk: int = 16 << 20
    """Bytes in the folder that it may write to, which is in memory and empty at first."""
    output: int = 64 << 10
    """Bytes that it may print."""
    threads: int = 16

    def __post_init__(self) -> None:
        least = {"seconds": 0.1, "memory": _LEAST_MEMORY, "disk": 1 << 16, "output": 0, "threads": 1}
        faults = [
            f"{name} = {getattr(self, name)}, expected at least {most}"
            for name, most in least.items()
            if not getattr(self, name) >= most
        ]
        if faults:
            raise ConfigError(listed("the limits of a sandbox are too small:", faults))


@dataclass(frozen=True)
class Outcome:
    """What came of a trial."""

    status: Status
    """`passed` if every test did, and where there are none, if the code ran to its end."""
    stdout: str
    """What the code printed, cut off at the limit."""
    stderr: str
    """The same, and then a line for each test that failed."""
    seconds: float
    """Wall time."""
    passed: int
    """Tests that passed, of `tests`."""
    tests: int

    @property
    def share(self) -> float:
        """Return the share of tests that passed; without tests, 1 where the code ran to its end and else 0."""
        return self.passed / self.tests if self.tests else float(self.status == "passed")
