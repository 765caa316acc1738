"""The two ends of the scale: the base alone, and the expert that the text belongs to."""

import torch
from torch import Tensor

from benchmarks.quality.method import Batch, Method, Routed
from benchmarks.quality.world import World


def base(world: World) -> Routed:
    """Return nobody's weight for every token."""

    def gate(batch: Batch) -> Tensor:
        return _only(torch.full_like(batch.owners, -1), len(world.names))

    return Routed(world, gate)


def expert(world: World) -> Routed:
    """Return the owner's weight for every token; where there is none, the base answers."""
    return Routed(world, lambda batch: _only(batch.owners, len(world.names)))


def _only(owners: Tensor, experts: int) -> Tensor:
    """Return weights [..., E + 1] of one for the owner."""
    return torch.nn.functional.one_hot(owners.where(owners >= 0, experts), experts + 1).double()


BASE = Method("base", "nothing", True, base)
EXPERT = Method("oracle expert", "labels", True, expert)
