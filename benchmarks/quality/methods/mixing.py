"""Every expert alike: the mean of what they add, and the adapter that the mean of their factors is.

`uniform` adds 1/E of each expert's output (the uniform routing that Ostapenko et al. 2024, "Towards Modular LLMs by
Building and Reusing a Library of LoRAs", compare with). `average A, B` takes the mean of the A's and the mean of the
B's, as FedAvg does with LoRA (Zhang et al. 2024, "Towards Building the Federated GPT: Federated Instruction Tuning"),
whose product is not the mean of the products.

Shapes: B batch, T tokens, E experts.
"""

import torch
from torch import Tensor

from benchmarks.quality.composites import Composed, Composites, factors, mixed
from benchmarks.quality.method import Batch, Layered, Method
from benchmarks.quality.world import World
from moehub.router.gate import Shared
from moehub.router.route import Route


def uniform(world: World) -> Layered:
    """Return every expert's output at weight 1/E."""
    return Layered(world, lambda batch: Shared(even(batch.ids.numel(), len(world.names))))


def even(tokens: int, experts: int) -> Route:
    """Return the route of tokens to all experts alike."""
    indices = torch.arange(experts).expand(tokens, experts)
    return Route(indices, torch.full((tokens, experts), 1 / experts), experts)


def average(world: World) -> Composed:
    """Return the base with one adapter, whose A and B are the means of all A's and of all B's."""
    found = factors(world)
    composites = Composites(world, found, 1)
    composites.put(0, mixed(found, torch.full((len(world.names),), 1 / len(world.names))))
    return Composed(composites, _everywhere)


def _everywhere(batch: Batch) -> Tensor:
    return torch.zeros_like(batch.ids)


UNIFORM = Method("uniform", "nothing", True, uniform)
AVERAGE = Method("average A, B", "nothing", False, average)
