"""The results of all methods as one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.hub import present, where
from benchmarks.quality.method import registered
from benchmarks.quality.methods.oracle import BASE, EXPERT
from benchmarks.quality.rows import SWITCHING
from benchmarks.quality.score import Sums, gain_kept, harm
from benchmarks.quality.texts import GENERIC
from benchmarks.quality.world import World

TITLE = "The gate: every way to combine the same experts"


@dataclass(frozen=True)
class Result:
    """One method in one world."""

    needs: str
    alone: bool
    bytes: int
    note: str
    seconds: float
    answering: float
    texts: dict[str, Sums]


Results = Sequence[Mapping[str, Result]]
"""For each seed: method → result."""
COLUMNS = (
    "method",
    "made from",
    "adds alone",
    "kept, domains",
    "worst",
    "kept, skills",
    "kept, switching",
    "latency",
    "kept, first 16",
    "generic",
    "unseen",
    "run",
    "s each",
    "KiB each",
)


def show(results: Results, world: World, *, write: bool) -> None:
    """Print the table, and keep it if asked to."""
    names = [name for name in results[0] if all(name in one for one in results) or _seeds(name)]
    rows = [row(name, [one for one in results if name in one], world) for name in names]
    how = f"`python -m benchmarks.quality --data DIR`, {len(results)} seed(s), {len(world.names)} experts."
    present(TITLE, COLUMNS, rows, how=how, machine=where(), write=write)


def row(name: str, results: Results, world: World) -> tuple[str, ...]:
    """Return a method's line."""
    base, mine, best = ([one[other].texts for one in results] for other in (BASE.name, name, EXPERT.name))
    skills = [one for one in world.names if world.domain(one).twin is not None]
    skills = sorted({*skills, *(str(world.domain(one).twin) for one in skills)})
    plain = [one for one in world.names if world.test[one].rows and not _prompted(world, one)]
    unseen = [domain.name for domain in world.texts.unseen]
    kept = {one: gain_kept(base, mine, best, [one]).value for one in world.names}
    worst = min(kept, key=lambda one: kept[one])
    first = results[0][name]
    seeds = _seeds(name)
    return (
        name if seeds is None else f"{name} (seed {', '.join(map(str, seeds))})",
        first.needs,
        "yes" if first.alone else "no",
        str(gain_kept(base, mine, best, world.names)),
        f"{kept[worst]:.1f} {worst}",
        f"{gain_kept(base, mine, best, skills).value:.1f}" if skills else "-",
        str(gain_kept(base, mine, best, [SWITCHING])),
        _mean([one[SWITCHING].latency for one in mine], "{:.1f}"),
        f"{gain_kept(base, mine, best, plain, first=True).value:.1f}" if plain else "-",
        f"{harm(base, mine, [GENERIC]).value:+.2f}",
        f"{harm(base, mine, unseen).value:+.2f}",
        _mean([one[text].run for one in mine for text in world.names], "{:.0f}"),
        f"{np.mean([one[name].seconds for one in results]):.1f}",
        f"{first.bytes / 1024:.0f}",
    )


def _seeds(name: str) -> tuple[int, ...] | None:
    """Return the seeds that a method is measured on where it is not all."""
    return registered()[name].seeds


def _prompted(world: World, name: str) -> bool:
    from benchmarks.quality.rows import prompts

    return any(prompts(row) > 1 for row in world.test[name].rows)


def _mean(values: Sequence[float | None], form: str) -> str:
    present_values = [value for value in values if value is not None]
    return form.format(np.mean(present_values)) if present_values else "-"
