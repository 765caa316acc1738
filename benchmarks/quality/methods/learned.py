"""Gates learned by gradient on the text of all contributors, pooled in one place: what sharing the text is worth.

A linear gate, softmax over the two largest of the experts and nobody (top-2 as in Lepikhin et al. 2020, "GShard",
section 2.2), trained through the frozen MoE to predict the next token until the tune loss no longer improves. The
pool holds public text too, as much as one contributor has, so that the column of nobody can be learned.

`one gate` decides once for all layers, before the first: it reads the token's embedding and its means over the last
8 and 64 tokens, each of root mean square 1. `gates by layer` decide in each block from its input. `balanced` adds
the losses that keep experts in use: 0.01 times the imbalance (Fedus et al. 2021, "Switch Transformers", equation 4)
and 0.001 times the z-loss (Zoph et al. 2022, "ST-MoE", equation 5), their coefficients, summed over gates.

Chosen on the texts for tuning, in short trials: the learning rate, and whether all columns are mixed while training
(each expert then gets a gradient at every token) or two, as they are afterwards.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality import gating, training
from benchmarks.quality.gating import Gates, K
from benchmarks.quality.method import Batch, Entrant, Layered, Method, Routed, top
from benchmarks.quality.texts import said
from benchmarks.quality.training import Learner, Packed
from benchmarks.quality.world import World
from moehub.console import progress
from moehub.experts.packing import Row
from moehub.router.gate import Shared
from moehub.router.layer import Routing

RATES = (3e-3, 3e-2)
_WINDOWS = (1, 8, 64)
_BALANCE, _Z = 1e-2, 1e-3
_TRIAL, _MOST = 40, 500
_ONE = "all layers"


@dataclass(frozen=True)
class Kind:
    """Which of the four it is."""

    name: str
    by_layer: bool
    balanced: bool


class Pooled:
    """One world's training of one kind of gate."""

    def __init__(self, world: World, kind: Kind) -> None:
        self.world, self.kind = world, kind
        self.learner = Learner(world)
        self.columns = len(world.names) + 1
        self.texts = training.tuning(world)

    def gates(self) -> Gates:
        """Return gates that know nothing yet."""
        if self.kind.by_layer:
            return Gates(self.learner.places, self.learner.hidden, self.columns, seed=self.world.seed)
        return Gates([_ONE], self.learner.hidden * len(_WINDOWS), self.columns, seed=self.world.seed)

    def entrant(self, gates: Gates, note: str = "") -> Entrant:
        """Return what routes by gates."""
        size = shared_bytes(self.world)
        if self.kind.by_layer:
            return Layered(self.world, lambda _: gating.by_block(gates, K), size, note)

        def weights(batch: Batch) -> Tensor:
            positions = torch.arange(batch.ids.shape[1]).repeat(len(batch.ids))
            logits = gates.logits(_ONE, self.features(batch.ids, positions))
            return top(logits.softmax(-1), K).view(*batch.ids.shape, self.columns)

        return Routed(self.world, weights, size, note)

    def features(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return what the one gate reads: [B, T/B] to [T, D]."""
        embedded = gating.rms(self.learner.embed(ids)).flatten(0, 1)
        return torch.cat([gating.rms(gating.window_mean(embedded, positions, reach)) for reach in _WINDOWS], -1)

    def loss(self, gates: Gates, k: int, rows: Sequence[Row]) -> Tensor:
        """Return nats per token, and what keeps the experts in use."""
        packed, seen = self.learner.pack(rows), list[Tensor]()
        value = self.learner.loss(packed, self.routing(gates, k, packed, seen))
        if self.kind.balanced:
            for logits in seen:
                real = logits[packed.real]
                value = value + _BALANCE * gating.imbalance(real, K) + _Z * gating.z_loss(real)
        return value

    def routing(self, gates: Gates, k: int, packed: Packed, seen: list[Tensor]) -> Routing:
        """Return the routing of one step; `seen` gets the logits."""
        if self.kind.by_layer:
            return gating.by_block(gates, k, seen)
        seen.append(gates.logits(_ONE, self.features(packed.inputs["input_ids"], packed.positions)))
        return Shared(gating.chosen(seen[0], k))

    def tune(self, gates: Gates) -> float:
        """Return nats per token on the texts for tuning."""
        return training.tune_loss(self.texts, self.entrant(gates))

    def make(self) -> Entrant:
        """Choose rate and columns, train, and return what routes."""
        pool = training.pooled(self.world)
        settings = list(itertools.product(RATES, (K, self.columns)))
        found = {}
        with progress(self.kind.name, len(settings) * _TRIAL + _MOST) as advance:
            for rate, k in settings:
                gates = self.gates()
                loss = functools.partial(self.loss, gates, k)
                training.descend(gates, loss, self.stream(pool), rate=rate, steps=_TRIAL, advance=advance)
                found[rate, k] = self.tune(gates)
            rate, k = min(found, key=lambda setting: found[setting])
            gates = self.gates()
            loss = functools.partial(self.loss, gates, k)
            tune = functools.partial(self.tune, gates)
            ended = training.settle(gates, loss, self.stream(pool), tune, rate=rate, most=_MOST, advance=advance)
        return self.entrant(gates, f"rate {rate:g}, {k} columns while training; {ended}")

    def stream(self, pool: dict[str, list[Row]]) -> Iterator[list[Row]]:
        """Return the batches, the same for every trial."""
        return training.batches(pool, f"learned {self.world.seed}", training.TOKENS)


def shared_bytes(world: World) -> int:
    """Return how much text one contributor sends, on average."""
    sizes = [sum(len(said(one).encode()) for one in world.examples(name)) for name in world.names]
    return sum(sizes) // len(sizes)


def _method(name: str, *, by_layer: bool, balanced: bool) -> Method:
    kind = Kind(name, by_layer, balanced)
    return Method(name, "shared text", False, lambda world: Pooled(world, kind).make())


ONE = _method("one gate", by_layer=False, balanced=False)
ONE_BALANCED = _method("one gate, balanced", by_layer=False, balanced=True)
LAYERS = _method("gates by layer", by_layer=True, balanced=False)
LAYERS_BALANCED = _method("gates by layer, balanced", by_layer=True, balanced=True)
