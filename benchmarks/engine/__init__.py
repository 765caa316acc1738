"""What the engine costs beside the plain base; `python -m benchmarks.engine` prints the rows of every part."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Ratio:
    """How many times what it is compared with something costs."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.least:.3f}, {self.most:.3f}]"


@dataclass(frozen=True)
class Row:
    """One line of the table: a work in one case."""

    work: str
    """As `prefill`."""
    case: str
    """As `64 experts, bfloat16, uniform routing`."""
    figure: str
    """What was measured, with its spread."""
    goal: str
    """What was wanted, or nothing."""
    others: str = ""
    """What others take for the same work, in the same run."""


def interleaved(
    works: Mapping[str, Callable[[], object]],
    *,
    against: str,
    turns: int,
    clock: Callable[[], float] = time.process_time,
) -> tuple[dict[str, Ratio], float]:
    """Return what each work costs relative to the one named `against`, and the median seconds of that one.

    All works take turns, so that a machine that slows down slows all of them; each turn gives a ratio of its own.
    The first turn warms up and does not count.

    Args:
        works: what to measure, by name.
        against: the work that the others are compared with.
        turns: how often each is measured.
        clock: seconds so far; by default the processor time of this process.
    """
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(turns + 1):
        for name, work in works.items():
            gc.collect()
            begin = clock()
            work()
            if turn:
                seconds[name].append(clock() - begin)
    ratios = {
        name: [mine / theirs for mine, theirs in zip(taken, seconds[against], strict=True)]
        for name, taken in seconds.items()
    }
    return (
        {name: Ratio(statistics.median(each), min(each), max(each)) for name, each in ratios.items()},
        statistics.median(seconds[against]),
    )
