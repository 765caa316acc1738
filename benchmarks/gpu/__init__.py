"""What the sparse layer costs on a GPU; each part measures a table, `python -m benchmarks.gpu` prints them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from benchmarks.gpu.timing import Timer

STATIC = ("dense", "gather", "triton")
"""Backends that wait for nothing, so that they can be a CUDA graph; `gather` for few tokens."""


@dataclass
class Table:
    """What a part measured."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What stands below it: what was left out, and why."""


@dataclass(frozen=True)
class Run:
    """What the parts share."""

    device: torch.device
    backends: tuple[str, ...]
    """What is compared and measured: those that run on the device, unless they were left out by name."""
    small: bool
    """Tiny sizes, so that every line runs on a CPU within a minute; the figures mean nothing."""
    timer: Timer
    say: Callable[[str], None]
    """Prints a line while the run goes on."""


class Budget:
    """The seconds that a part may take."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._end = seconds, time.monotonic() + seconds

    def spent(self) -> bool:
        """Return whether nothing more is to be begun."""
        return time.monotonic() >= self._end

    def share(self, part: float) -> "Budget":
        """Return a budget of a part of these seconds, from now on."""
        return Budget(part * self._seconds)
