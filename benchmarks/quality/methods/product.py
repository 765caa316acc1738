"""The product: the gate that `moehub merge` makes by default, and variants of it that show what each part brings."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from benchmarks.quality.method import Batch, Method, Routed
from benchmarks.quality.world import PAIR_BITS, TRIPLE_BITS, World
from moehub.card import STATISTICS_FILE
from moehub.experts import privacy
from moehub.experts.folder import open_expert
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics
from moehub.router.gate import PosteriorGate, gate_of
from moehub.router.settings import RouterSettings
from moehub.router.window import Window

Change = Callable[[Statistics], Statistics]


def product(
    settings: RouterSettings | None = None, *, null: Change | None = None, own: Change | None = None
) -> Callable[[World], Routed]:
    """Return what makes the gate of a world's published statistics.

    Args:
        settings: the default ones where there are none.
        null: changes the null's statistics first.
        own: changes each contributor's.
    """
    chosen = settings or RouterSettings()

    def make(world: World) -> Routed:
        counted = {name: one if own is None else own(one) for name, one in published(world).items()}
        generic = Statistics.load(world.null() / STATISTICS_FILE)
        gate = gate_of(counted, generic if null is None else null(generic), chosen)
        return Routed(world, Gate(gate), size(world))

    return make


def published(world: World) -> dict[str, Statistics]:
    """Return what each contributor published."""
    return {name: open_expert(world.expert(name)).statistics() for name in world.names}


def size(world: World) -> int:
    """Return the bytes of a contributor's statistics, the mean."""
    return sum((world.expert(name) / STATISTICS_FILE).stat().st_size for name in world.names) // len(world.names)


class Gate:
    """A gate of posteriors as a method of the bench."""

    def __init__(self, gate: PosteriorGate, alone: Callable[[Batch], Tensor] | None = None) -> None:
        """Keep the gate, and what knows log p of each token under each expert alone, nobody's last: [B, T, E + 1]."""
        self.gate, self.alone = gate, alone

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Tensor:
        """Return the weights that the layers would get, nobody's last: [B, T, E + 1]."""
        alone = self.alone
        heard = None if alone is None else lambda *_: (alone(batch), ())
        window = Window(batch.ids, batch.mask, torch.Tensor, heard)
        believed, _ = self.gate(window, self.gate.begin(len(batch.ids), batch.ids.device))
        dense = self.gate.routing(believed).shared.dense
        weights = torch.cat([dense, 1 - dense.sum(-1, keepdim=True)], -1).clamp_min(0)
        # What is left to nobody by rounding is nothing.
        return weights.where(weights > 1e-9, 0).view(*batch.ids.shape, -1)


def private(epsilon: float) -> Callable[[World], Routed]:
    """Return what makes the gate of counts with the noise of `--private`."""

    def make(world: World) -> Routed:
        config = TrainConfig()
        counting = partial(
            privacy.count,
            tokenizer=world.base.pin().tokenizer,
            vocabulary=len(world.tokenizer),
            pair_bits=PAIR_BITS,
            triple_bits=TRIPLE_BITS,
            epsilon=epsilon,
            delta=config.private_delta,
            clip=config.private_clip,
        )
        counted = {name: counting(world.documents(name)).suppress(config.suppress_below) for name in world.names}
        generic = Statistics.load(world.null() / STATISTICS_FILE)
        return Routed(world, Gate(gate_of(counted, generic, RouterSettings())), size(world))

    return make


_DEFAULT = RouterSettings()


def _variant(name: str, settings: RouterSettings | None = None, *, null: Change | None = None) -> Method:
    return Method(name, "statistics", alone=True, make=product(settings, null=null))


METHODS = (
    _variant("evidence"),
    _variant("evidence, top 1", replace(_DEFAULT, top_k=1)),
    _variant("evidence, top 3", replace(_DEFAULT, top_k=3, threshold=0.02)),
    _variant("evidence, one rate", replace(_DEFAULT, calm_rho=_DEFAULT.rho)),
    _variant("evidence, no triples", replace(_DEFAULT, triple_weight=0.0)),
    _variant("evidence, one face", null=lambda generic: replace(generic, faces=())),
    _variant("evidence, no floor", replace(_DEFAULT, least_count=1e-9)),
    *(
        Method(f"evidence, private {epsilon:g}", "statistics", alone=True, make=private(epsilon))
        for epsilon in (8.0, 3.0, 1.0)
    ),
)
