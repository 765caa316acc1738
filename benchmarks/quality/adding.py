"""What an expert that joins does to everybody else: each domain's loss with and without each other expert.

    python -m benchmarks.quality adding --work DIR [--write]

The gate without an expert is made of the statistics of the others, as `moehub merge` would; its routes are computed on
the same model.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.hub import present, where
from benchmarks.quality.method import Batch, Routed
from benchmarks.quality.methods.product import Gate, published, size
from benchmarks.quality.rows import Held
from benchmarks.quality.score import sums
from benchmarks.quality.tuning import few
from benchmarks.quality.world import World
from moehub.card import STATISTICS_FILE
from moehub.console import progress
from moehub.experts.statistics import Statistics
from moehub.router.gate import gate_of
from moehub.router.settings import RouterSettings

TITLE = "The gate: what one more expert does to the others"
_ROWS = 6


def measure(world: World, *, write: bool) -> None:
    """Print by how much each expert that joins moves the other domains' losses."""
    counted, null = published(world), Statistics.load(world.null() / STATISTICS_FILE)
    texts = {name: few(world.test[name], _ROWS) for name in world.names}
    whole = _losses(_routed(world, counted, null), texts)
    rows = []
    with progress("leaving one out", len(world.names)) as advance:
        for newcomer in world.names:
            others = {name: one for name, one in counted.items() if name != newcomer}
            without = _losses(
                _routed(world, others, null), {name: held for name, held in texts.items() if name != newcomer}
            )
            moved = {name: 100 * (whole[name] / loss - 1) for name, loss in without.items()}
            most = max(moved, key=lambda name: abs(moved[name]))
            rows.append((newcomer, f"{np.mean(list(moved.values())):+.3f}", f"{moved[most]:+.3f}", most))
            advance(1, newcomer)
    present(
        TITLE,
        ("newcomer", "others' loss, mean, %", "moved most, %", "whose"),
        rows,
        how="`python -m benchmarks.quality adding --work DIR`: losses of the other domains with the newcomer against "
        "those without, above 0 where it harms.",
        machine=where(),
        write=write,
    )


def _routed(world: World, counted: Mapping[str, Statistics], null: Statistics) -> Routed:
    gate = Gate(gate_of(counted, null, RouterSettings()))
    columns = torch.tensor([*(world.names.index(name) for name in counted), len(world.names)])

    def spread(batch: Batch) -> Tensor:
        weights = gate(batch)
        everybody = weights.new_zeros(*weights.shape[:-1], len(world.names) + 1)
        return everybody.index_copy(-1, columns, weights)

    return Routed(world, spread, size(world))


def _losses(entrant: Routed, texts: Mapping[str, Held]) -> dict[str, float]:
    return {name: sums(held, entrant.answer(held)).loss for name, held in texts.items()}
