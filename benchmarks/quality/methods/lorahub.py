"""LoraHub: weights of the experts that a search without gradients finds on a few examples of a task.

    m = (w_1 A_1 + … + w_E A_E)(w_1 B_1 + … + w_E B_E),   minimise  L + α·Σ|w_i|

(Huang et al. 2023, "LoraHub: Efficient Cross-Task Generalization via Dynamic LoRA Composition", section 3: five
examples, w within ±1.5, and of its code: L1 as 0.05 times the mean of |w|, w = 0 at first, 40 evaluations). The paper
takes the optimiser from nevergrad, by which it mostly is CMA-ES; here it is `benchmarks.quality.cma`, with the step
of a sixth of the range that nevergrad begins with. Examples are cut to 256 tokens. Weights are found for each domain,
and the method is told which domain a token is of: the paper's is a method for one task.

Shapes: B batch, T tokens, E experts.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch.nn import functional

from benchmarks.quality.cma import Vector, minimise
from benchmarks.quality.composites import Composed, Composites, Factors, factors, mixed
from benchmarks.quality.method import Method, batch
from benchmarks.quality.rows import Held
from benchmarks.quality.tuning import few
from benchmarks.quality.world import World
from moehub.experts.packing import IGNORED, Row

EXAMPLES = 5
EVALUATIONS = 40
BOUND = 1.5
ALPHA = 0.05
_LONGEST = 256


def lorahub(world: World) -> Composed:
    """Return one composition of the experts for each domain."""
    found = factors(world)
    composites = Composites(world, found, len(world.names))
    size = []
    for number, name in enumerate(world.names):
        weights = search(composites, number, found, examples(world.tune[name]), seed=f"{world.seed} {name}")
        composites.put(number, mixed(found, weights))
        size.append(float(weights.abs().sum()))
    note = f"{EXAMPLES} examples, {EVALUATIONS} evaluations each; Σ|w| {min(size):.2f} to {max(size):.2f}"
    return Composed(composites, lambda one: one.owners, note=note)


def examples(held: Held) -> Held:
    """Return a few rows of a text, cut."""
    rows = [row for row in map(_cut, held.rows) if bool((row.labels != IGNORED).any())]
    return few(Held(held.name, tuple(rows), tuple(owners[:_LONGEST] for owners in held.owners)), EXAMPLES)


def search(composites: Composites, number: int, found: Factors, held: Held, *, seed: str) -> torch.Tensor:
    """Return the weights [E] of the composition, number so and so, that is best on some examples."""
    loss = _loss(composites, number, found, held)
    generator = np.random.default_rng(list(hashlib.sha256(seed.encode()).digest()))
    start = np.zeros(len(next(iter(found.values()))[0]))
    best = minimise(loss, start, sigma=BOUND / 3, bound=BOUND, evaluations=EVALUATIONS, generator=generator)
    return torch.from_numpy(best).float()


def _loss(composites: Composites, number: int, found: Factors, held: Held) -> Callable[[Vector], float]:
    one = batch(held, range(len(held.rows)))
    labels = functional.pad(
        torch.nn.utils.rnn.pad_sequence([row.labels for row in held.rows], batch_first=True, padding_value=IGNORED),
        (0, 1),
        value=IGNORED,
    )[:, 1:]
    numbers, learned = torch.full_like(one.ids, number), labels != IGNORED

    def loss(weights: Vector) -> float:
        composites.put(number, mixed(found, torch.from_numpy(weights).float()))
        logits = composites.logits(one.ids, numbers)[learned].float()
        predicted = functional.cross_entropy(logits, labels[learned])
        return float(predicted) + ALPHA * float(np.abs(weights).mean())

    return loss


def _cut(row: Row) -> Row:
    ids = row.ids[:_LONGEST]
    return Row(ids, row.labels[:_LONGEST], (len(ids),))


LORAHUB = Method("lorahub", "own text, labels", False, lorahub)
