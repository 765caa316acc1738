"""Adapters made from the experts' own factors, beside the base in a model of their own.

Shapes: E experts, r rank, B batch, T tokens, V vocabulary.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality.method import Answer, Batch, answered
from benchmarks.quality.rows import Held
from benchmarks.quality.world import World
from moehub.base import quiet_transformers
from moehub.experts.adapter import Adapter
from moehub.merge.stack import stack
from moehub.router.backends.loop import loop
from moehub.router.gate import Shared
from moehub.router.layer import Switchboard
from moehub.router.route import Route

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""Name of a linear → A, B."""


def factors(world: World) -> Factors:
    """Return all experts' A [E, r, d_in] and B [E, d_out, r] of each linear, float32, the scale in B."""
    adapters = world.moe.parts.adapters
    return {
        key: (
            torch.stack([adapter.pairs[key][0].float() for adapter in adapters]),
            torch.stack([adapter.scales[key] * adapter.pairs[key][1].float() for adapter in adapters]),
        )
        for key in adapters[0].pairs
    }


def mixed(found: Factors, weights: Tensor) -> Factors:
    """Return Σ_e w_e A_e [r, d_in] and Σ_e w_e B_e [d_out, r] of each linear, for weights w [E]."""
    return {key: tuple(torch.einsum("e,eij->ij", weights, one) for one in pair) for key, pair in found.items()}  # type: ignore[misc]


class Composites:
    """The base with a number of adapters, each zero until it is put."""

    def __init__(self, world: World, like: Factors, count: int) -> None:
        """Load the base; `like` says what shape adapters have."""
        empty = Adapter({key: (torch.zeros_like(A[0]), torch.zeros_like(B[0])) for key, (A, B) in like.items()}, {})
        empty = Adapter(empty.pairs, dict.fromkeys(empty.pairs, 1.0))
        self.count = count
        self.board = Switchboard(loop)
        with quiet_transformers():
            self.model = world.base.load_model()
        self.layers = stack(self.model, [empty] * count, self.board)

    def put(self, number: int, pairs: Factors) -> None:
        """Make one of the adapters A [r, d_in] and B [d_out, r] of each linear."""
        for key, (A, B) in pairs.items():
            self.layers[key].A.data[number, : len(A)] = A.to(self.layers[key].dtype)
            self.layers[key].B.data[number, : len(A)] = B.T.to(self.layers[key].dtype)

    @torch.no_grad()
    def logits(self, ids: Tensor, numbers: Tensor) -> Tensor:
        """Return the logits [B, T, V] of ids [B, T], where each token has the adapter of its number; -1: none."""
        flat = numbers.flatten()[:, None]
        self.board.routing = Shared(Route(flat.clamp_min(0), (flat >= 0).float(), self.count))
        found: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return found


@dataclass
class Composed:
    """Composites, and which of them answers for each token."""

    composites: Composites
    which: Callable[[Batch], Tensor]
    """Their numbers, int64 [B, T]; -1 for the base alone."""
    bytes: int = 0
    note: str = ""

    def answer(self, held: Held) -> Answer:
        """Return what it makes of a text."""
        return answered(held, lambda batch: (self.composites.logits(batch.ids, self.which(batch)), None))
