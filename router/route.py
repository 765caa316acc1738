"""A route: which experts each token goes to, and with what weight.

Shapes: T tokens (batch and time flattened), K experts per token, E experts, S active (token, expert) pairs.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from moehub.router.tiles import Tiles


@dataclass(frozen=True, eq=False)
class Route:
    """At most K experts for each token; a pair of weight 0 is inactive, and a token may have none.

    Two routes are the same only if they are one object: what is made of a route can be kept under it.
    """

    indices: Tensor
    """int64 [T, K]; what stands beside a weight of 0 does not matter but is below E."""
    weights: Tensor
    """[T, K]; the rest up to 1 belongs to the null expert."""
    experts: int
    """E."""

    @classmethod
    def select(cls, gate: Tensor, *, top_k: int, threshold: float, has_null: bool) -> "Route":
        """Return the route of a posterior.

        The `top_k` most probable experts stay, those below `threshold` are dropped, the rest is renormalised.
        The null expert, the last column where there is one, competes for a place and contributes nothing.

        Args:
            gate: probabilities, [T, E] or [T, E + 1] with the null expert.
            top_k: experts per token, at most; the null expert counts.
            threshold: weights below are dropped, unless all are.
            has_null: whether the last column is the null expert's.
        """
        experts = gate.shape[-1] - has_null
        weights, indices = gate.topk(min(top_k, gate.shape[-1]), dim=-1)
        kept = (weights >= threshold) | (weights >= weights.amax(-1, keepdim=True))
        weights = weights * kept
        weights = weights / weights.sum(-1, keepdim=True)
        return cls(indices.clamp_max(experts - 1), weights * (indices < experts), experts)

    @classmethod
    def fixed(cls, expert: int | None, *, tokens: int, experts: int, device: torch.device) -> "Route":
        """Return the route that sends every token to one expert, or to none."""
        indices = torch.full((tokens, 1), expert or 0, dtype=torch.int64, device=device)
        weights = torch.full((tokens, 1), 0.0 if expert is None else 1.0, device=device)
        return cls(indices, weights, experts)

    def to(self, device: torch.device) -> "Route":
        """Return the route on another device, itself if it is there already."""
        if self.indices.device == device:
            return self
        return Route(self.indices.to(device), self.weights.to(device), self.experts)

    @cached_property
    def pairs(self) -> Tensor:
        """Positions of the active pairs in the flattened [T·K], sorted by expert, then by token: int64 [S]."""
        flat = self.weights.detach().flatten()
        active = flat.nonzero().flatten()
        return active[self.indices.flatten()[active].argsort(stable=True)]

    @cached_property
    def tokens(self) -> Tensor:
        """Token of each active pair, int64 [S]."""
        return self.pairs // self.indices.shape[1]

    @cached_property
    def sorted_experts(self) -> Tensor:
        """Expert of each active pair, ascending, int64 [S]."""
        return self.indices.flatten()[self.pairs]

    @cached_property
    def sorted_weights(self) -> Tensor:
        """Weight of each active pair, [S]."""
        return self.weights.flatten()[self.pairs]

    @cached_property
    def counts(self) -> Tensor:
        """Number of active pairs of each expert, int64 [E]."""
        return torch.bincount(self.sorted_experts, minlength=self.experts)

    @cached_property
    def offsets(self) -> Tensor:
        """Where each expert's pairs end, int32 [E]: what `grouped_mm` wants."""
        return self.counts.cumsum(0).to(torch.int32)

    @cached_property
    def tiles(self) -> Tiles:
        """All pairs, inactive ones too, sorted and cut; unlike `pairs` it is made without waiting for the device."""
        return Tiles.of(self.indices, self.weights, self.experts)

    @cached_property
    def dense(self) -> Tensor:
        """Weight of every expert for every token, [T, E]."""
        empty = torch.zeros(len(self.indices), self.experts, dtype=self.weights.dtype, device=self.weights.device)
        return empty.scatter_add(1, self.indices, self.weights)
