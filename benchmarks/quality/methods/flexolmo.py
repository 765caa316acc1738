"""FlexOlmo's router: each contributor brings a row for each block.

Shi et al. 2025, "FlexOlmo: Open Language Models for Flexible Data Use", section 3.3.2:

    r_i = mean over some of its documents of E(document), then trained in the pair [r_pub, r_i] on its own text
    y = Σ softmax over the k largest of (r_pub·x, r_1·x + b_1, …, r_n·x + b_n),   b_i ≤ 0

Rows are put under each other without joint training; the public model has a row of its own, which stays as it began.
While a contributor trains, expert and public model are mixed at every token by softmax over the pair. b_i is a
parameter held at or below zero, as in the authors' code; the paper says only that it is negative.

What is not as in the paper: experts were trained before, by themselves, and are frozen, where FlexOlmo trains expert
and row together (that the experts fit each other less is part of what it argues); the public model is the base, so its
share adds nothing; E is no embedder of its own but the mean of what the block reads, in the base, of root mean square
1; rows begin at length 1. The optional router tuning on proxy text (section 3.3.3) is left out: it would need all
experts in one place. Chosen on the texts for tuning: the learning rate, by trials of 15 steps, and k.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.quality import gating, training
from benchmarks.quality.gating import Blocks, K
from benchmarks.quality.method import Layered, Method
from benchmarks.quality.texts import GENERIC
from benchmarks.quality.training import Learner
from benchmarks.quality.world import World
from moehub.console import progress
from moehub.experts.packing import Row
from moehub.router.route import Route

STEPS = 100
"""As many as an expert was trained for."""
RATES = (1e-3, 1e-2)
CHOICES = (1, 2, 4)
_TRIAL = 15
_DOCUMENTS = 64
"""That a row begins from."""

Centres = Mapping[str, Tensor]
"""Block → row [D]."""


class Rows(nn.Module):
    """What one contributor brings: a row and a bias for each block."""

    def __init__(self, centres: Centres) -> None:
        super().__init__()
        self._numbers = {place: number for number, place in enumerate(centres)}
        self.rows = nn.Parameter(torch.stack(list(centres.values())))
        self.biases = nn.Parameter(torch.full((len(centres),), -0.02))

    def logit(self, place: str, x: Tensor) -> Tensor:
        """Return r·x + b with b ≤ 0: [T, D] to [T]."""
        number = self._numbers[place]
        return x @ self.rows[number] + self.biases[number].clamp_max(0)


def paired(mine: Rows, public: Centres, expert: int, experts: int) -> Blocks:
    """Return the routing of one forward in which an expert meets the public model alone."""

    def decide(place: str, x: Tensor) -> Route:
        x = gating.rms(x)
        return gating.lone(expert, (mine.logit(place, x) - x @ public[place]).sigmoid(), experts)

    return Blocks(decide)


def joined(everybody: Sequence[Rows], public: Centres, k: int) -> Blocks:
    """Return the routing of one forward in which all compete."""

    def decide(place: str, x: Tensor) -> Route:
        x = gating.rms(x)
        return gating.chosen(torch.stack([*(one.logit(place, x) for one in everybody), x @ public[place]], -1), k)

    return Blocks(decide)


def make(world: World) -> Layered:
    """Let every contributor train its rows against the public one, then choose k."""
    learner, texts = Learner(world), training.tuning(world)
    own: dict[str, list[Row]] = {name: training.own(world, name) for name in world.names}
    public = learner.centres(training.own(world, GENERIC)[:_DOCUMENTS])
    begun = {name: learner.centres(rows[:_DOCUMENTS]) for name, rows in own.items()}
    rates: dict[float, float] = {}
    with progress("flexolmo rows", len(own) * (len(RATES) * _TRIAL + STEPS)) as advance:

        def everybody(rate: float, steps: int) -> list[Rows]:
            trained = []
            for number, name in enumerate(world.names):
                rows = Rows(begun[name])

                def loss(some: Sequence[Row], rows: Rows = rows, number: int = number) -> Tensor:
                    return learner.loss(learner.pack(some), paired(rows, public, number, len(world.names)))

                stream = training.batches({name: own[name]}, f"flexolmo {name}", training.OWN_TOKENS)
                training.descend(rows, loss, stream, rate=rate, steps=steps, advance=advance)
                trained.append(rows)
            return trained

        def entrant(rows: Sequence[Rows], k: int) -> Layered:
            size = 4 * len(learner.places) * (learner.hidden + 1)
            return Layered(world, lambda _: joined(rows, public, k), size)

        for rate in RATES:
            rates[rate] = training.tune_loss(texts, entrant(everybody(rate, _TRIAL), K))
        rate = min(rates, key=lambda one: rates[one])
        rows = everybody(rate, STEPS)
    found = {k: training.tune_loss(texts, entrant(rows, k)) for k in CHOICES if k <= len(own) + 1}
    k = min(found, key=lambda one: found[one])
    made = entrant(rows, k)
    made.note = f"rate {rate:g}, k {k}; {STEPS} steps each, tune loss {found[k]:.4f}"
    return made


FLEXOLMO = Method("flexolmo rows", "own text", True, make)
