"""The results of all methods: what they keep, and what they cost, as two tables and a plot."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.hub import present, where
from benchmarks.quality.method import registered
from benchmarks.quality.methods.oracle import BASE, EXPERT
from benchmarks.quality.rows import SWITCHING
from benchmarks.quality.score import Seeds, Sums, gain_kept, harm, together
from benchmarks.quality.texts import GENERIC
from benchmarks.quality.world import World
from moehub import plots

QUALITY = "The gate: every way to combine the same experts"
COST = "The gate: what each way harms and costs"
_SHOWN = (-50, 150)
"""What keeps less, or is a bound far above, would push all others together."""
PLOT = Path(__file__).parent / "quality.png"


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
_KEEPS = ("method", "seeds", "domains", "together", "worst", "skills", "switching", "latency", "first 16")
_COSTS = ("method", "made from", "adds alone", "generic, %", "unseen, %", "worst unseen", "run", "s each", "KiB each")
_SAID = (
    "Gain kept, in percent of what the oracle expert gains over the base: the mean over the domains, that of all their "
    "gains together, the worst domain, skills over the same words, text that changes its domain every {turn} tokens, "
    "and the first 16 tokens of documents. Latency: tokens of a new stretch until its expert has the largest weight."
)


def show(results: Results, world: World, *, write: bool) -> None:
    """Print the tables; `write` keeps them, and the plot."""
    if not all({BASE.name, EXPERT.name} <= one.keys() for one in results):
        raise SystemExit(f"gains are measured between {BASE.name!r} and {EXPERT.name!r}: measure those too")
    measured = {name: [one for one in results if name in one] for name in registered()}
    measured = {name: some for name, some in measured.items() if some}
    how = f"`python -m benchmarks.quality --data DIR`, {len(results)} seed(s), {len(world.names)} experts."
    said = _SAID.format(turn=world.setup.turn)
    keeps = [_keeps(name, some, world) for name, some in measured.items()]
    costs = [_costs(name, some, world) for name, some in measured.items()]
    present(QUALITY, _KEEPS, keeps, how=f"{how} {said}", machine=where(), write=write)
    present(COST, _COSTS, costs, how=how, machine=where(), write=write)
    if write:
        plot(measured, world)


def plot(measured: Mapping[str, Results], world: World) -> None:
    """Draw what each method keeps on text of one domain and on text that switches, the best on top."""
    kept = {}
    for name, some in measured.items():
        texts = _texts(name, some)
        domains, switching = (gain_kept(*texts, chosen, interval=False).value for chosen in (world.names, [SWITCHING]))
        kept[name] = (domains, switching)
    shown = [name for name in kept if _SHOWN[0] < min(kept[name]) and max(kept[name]) < _SHOWN[1]]
    names = sorted(shown, key=lambda name: -sum(kept[name]))
    note = "Percent of what the oracle expert gains over the base, on text that nothing was trained or tuned on."
    with plots.figure(PLOT, title="What each gate keeps", size=(9, 1.5 + 0.24 * len(names)), panels=2, note=note) as (
        left,
        right,
    ):
        plots.bars(left, names, [kept[name][0] for name in names], title="text of one domain, %", form="{:.0f}")
        plots.bars(right, names, [kept[name][1] for name in names], title="text that switches, %", form="{:.0f}")


def _texts(name: str, results: Results) -> tuple[Seeds, Seeds, Seeds]:
    base, mine, best = ([one[other].texts for one in results] for other in (BASE.name, name, EXPERT.name))
    return base, mine, best


def _keeps(name: str, results: Results, world: World) -> tuple[str, ...]:
    base, mine, best = _texts(name, results)
    skills = [one for one in world.names if world.domain(one).twin is not None]
    skills = sorted({*skills, *(str(world.domain(one).twin) for one in skills)})
    plain = [one for one in world.names if not _prompted(world, one)]
    kept = {one: gain_kept(base, mine, best, [one], interval=False).value for one in world.names}
    worst = min(kept, key=lambda one: kept[one])
    return (
        name,
        str(len(results)),
        str(gain_kept(base, mine, best, world.names)),
        f"{together(base, mine, best, world.names):.1f}",
        f"{kept[worst]:.1f} {worst}",
        f"{gain_kept(base, mine, best, skills, interval=False).value:.1f}" if skills else "-",
        str(gain_kept(base, mine, best, [SWITCHING])),
        _mean([one[SWITCHING].latency for one in mine], "{:.1f}"),
        f"{gain_kept(base, mine, best, plain, first=True, interval=False).value:.1f}" if plain else "-",
    )


def _costs(name: str, results: Results, world: World) -> tuple[str, ...]:
    base, mine, _ = _texts(name, results)
    unseen = [domain.name for domain in world.texts.unseen]
    harms = {one: harm(base, mine, [one], interval=False).value for one in unseen}
    worst = max(harms, key=lambda one: harms[one])
    first = results[0][name]
    return (
        name,
        first.needs,
        "yes" if first.alone else "no",
        f"{harm(base, mine, [GENERIC], interval=False).value:+.2f}",
        f"{np.mean(list(harms.values())):+.2f}",
        f"{harms[worst]:+.2f} {worst}",
        _mean([one[text].run for one in mine for text in world.names], "{:.0f}"),
        f"{np.mean([one[name].seconds for one in results]):.1f}",
        f"{first.bytes / 1024:.0f}",
    )


def _prompted(world: World, name: str) -> bool:
    from benchmarks.quality.rows import prompts

    return any(prompts(row) > 1 for row in world.test[name].rows)


def _mean(values: Sequence[float | None], form: str) -> str:
    present_values = [value for value in values if value is not None]
    return form.format(np.mean(present_values)) if present_values else "-"
