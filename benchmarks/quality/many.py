"""Many contributors: the gate of 14, 32 and 128 of them, each with a part of a domain's text.

    python -m benchmarks.quality many --work DIR [--write]

Each counts its own part and publishes it as ever, small counts suppressed; the gate is the real one, with a column for
each. Contributors of one domain share that domain's adapter, because training so many is another matter: so what is
measured is what the gate loses by telling more, and smaller, contributors apart, not what small adapters are worth.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.hub import present, where
from benchmarks.quality.method import Batch, Routed, batches
from benchmarks.quality.methods import oracle
from benchmarks.quality.methods.product import Gate
from benchmarks.quality.rows import SWITCHING
from benchmarks.quality.score import Sums, kept, sums
from benchmarks.quality.tuning import few
from benchmarks.quality.world import World
from moehub.card import STATISTICS_FILE
from moehub.console import progress
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics
from moehub.router.gate import gate_of
from moehub.router.settings import RouterSettings

TITLE = "The gate: many contributors"
SIZES = (14, 32, 128)
_ROWS = 8


@dataclass(frozen=True)
class Crowd:
    """Contributors and the domain of each."""

    counted: dict[str, Statistics]
    domains: tuple[int, ...]


def crowd(world: World, size: int) -> Crowd:
    """Return `size` contributors, as many of each domain as can be, each with its part of the documents."""
    counted, domains = {}, []
    for number, name in enumerate(world.names):
        documents = world.documents(name)
        parts = size // len(world.names) + (number < size % len(world.names))
        for part in range(parts):
            one = world.count(documents[part::parts]).suppress(TrainConfig().suppress_below)
            counted[f"{name}-{part:03d}"] = one
            domains.append(number)
    return Crowd(counted, tuple(domains))


class Shared:
    """Weights of many contributors as weights of their domains' experts."""

    def __init__(self, gate: Gate, domains: Sequence[int], experts: int) -> None:
        self.gate, self.experts = gate, experts
        self.columns = torch.tensor([*domains, experts])

    def __call__(self, batch: Batch) -> Tensor:
        """Return weights [B, T, E + 1]."""
        weights = self.gate(batch)
        return weights.new_zeros(*weights.shape[:-1], self.experts + 1).index_add(-1, self.columns, weights)


def measure(world: World, *, write: bool) -> None:
    """Print what the gate keeps, how fast it is and what it weighs, by the number of contributors."""
    texts = {name: few(world.test[name], _ROWS) for name in (*world.names, SWITCHING)}
    null = Statistics.load(world.null() / STATISTICS_FILE)
    base, best = ({name: sums(held, one.answer(held)) for name, held in texts.items()} for one in _ends(world))
    rows = []
    with progress("contributors", len(SIZES)) as advance:
        for size in SIZES:
            people = crowd(world, size)
            gate = Gate(gate_of(people.counted, null, RouterSettings()))
            entrant = Routed(world, Shared(gate, people.domains, len(world.names)))
            found: dict[str, Sums] = {name: sums(held, entrant.answer(held)) for name, held in texts.items()}
            gains = [kept(base[name], found[name], best[name]) for name in world.names]
            tables = sum(one.numel() * one.element_size() for one in gate.gate.parameters())
            rows.append(
                (
                    str(size),
                    f"{np.mean(gains):.1f}",
                    f"{kept(base[SWITCHING], found[SWITCHING], best[SWITCHING]):.1f}",
                    f"{found[SWITCHING].latency:.1f}",
                    f"{_milliseconds(gate, world):.1f}",
                    f"{tables / 2**20:.0f}",
                )
            )
            advance(1, str(size))
    columns = ("contributors", "kept, domains", "kept, switching", "latency", "ms for 1,000 tokens", "MiB of tables")
    how = "`python -m benchmarks.quality many --work DIR`: contributors of one domain share its adapter, one seed."
    present(TITLE, columns, rows, how=how, machine=where(), write=write)


def _ends(world: World) -> tuple[Routed, Routed]:
    return oracle.base(world), oracle.expert(world)


def _milliseconds(gate: Gate, world: World) -> float:
    """Return what deciding about 1,000 tokens takes, the least of three."""
    some = next(iter(batches(world.test[SWITCHING])))
    taken = []
    for _ in range(3):
        started = time.perf_counter()
        gate(some)
        taken.append(time.perf_counter() - started)
    return 1e6 * min(taken) / some.ids.numel()
