"""One adapter made of all experts by PEFT: `add_weighted_adapter` as it comes.

TIES: Yadav et al. 2023, "TIES-Merging: Resolving Interference When Merging Models", section 4 (trim to the largest
share `density`, elect signs, mean of those that agree; λ = 1). DARE: Yu et al. 2024, "Language Models are Super
Mario" (drop at random, rescale), followed by a weighted sum or by TIES. `linear` is task arithmetic
(Ilharco et al. 2023). PEFT applies them to A and B apart, with weight √(w·scale) on each; the kinds with `_svd` apply
them to the products B·A, which is what the papers merge, and take the largest singular values of the result.
"""

from collections.abc import Iterable
from typing import Any

import torch

from benchmarks.quality.method import Method, Whole
from benchmarks.quality.tuning import Objective, Setting, choose, grid
from benchmarks.quality.world import World
from moehub.base import quiet_transformers

DENSITIES = (0.2, 0.5, 0.8)
_RANK = 64
"""Singular values that the kinds with `_svd` keep."""


def linear(world: World) -> Whole:
    """Return the weighted sum; 1/E² makes PEFT's product that of the mean factors."""
    count = len(world.names)
    return _merged(world, grid(kind=["linear", "svd"], weight=[1 / count**2, 1 / count]))


def ties(world: World) -> Whole:
    """Return what TIES makes of the experts."""
    return _merged(world, grid(kind=["ties", "ties_svd"], density=DENSITIES, weight=[1.0]))


def dare(world: World) -> Whole:
    """Return what DARE makes of the experts, summed or by TIES."""
    summed = grid(kind=["dare_linear", "dare_linear_svd"], density=DENSITIES, weight=[1 / len(world.names)])
    return _merged(world, [*summed, *grid(kind=["dare_ties", "dare_ties_svd"], density=DENSITIES, weight=[1.0])])


def _merged(world: World, settings: Iterable[Setting]) -> Whole:
    model = load(world)
    return choose(Objective.of(world), settings, lambda setting: Whole(merge(model, **setting)))


def load(world: World) -> Any:
    """Return the base as a model of PEFT's with every expert as an adapter of its name."""
    from peft import PeftModel

    first, *others = world.names
    with quiet_transformers():
        model = PeftModel.from_pretrained(world.base.load_model(), str(world.expert(first)), adapter_name=_name(first))
        for name in others:
            model.load_adapter(str(world.expert(name)), adapter_name=_name(name))
    return model.eval()


def merge(model: Any, *, kind: str, weight: float, density: float | None = None) -> Any:
    """Return the model with one more adapter, made of those that were loaded, in use alone."""
    experts = [name for name in model.peft_config if name.startswith(_name(""))]
    made = f"{kind} {weight} {density}".replace(".", "_")
    options = {"svd_rank": _RANK, "svd_full_matrices": False} if kind.endswith("svd") else {}
    if density is not None:
        options["density"] = density  # type: ignore[assignment]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.add_weighted_adapter(experts, [weight] * len(experts), made, combination_type=kind, **options)
    model.set_adapter(made)
    return model


def _name(expert: str) -> str:
    return f"expert {expert}".replace(".", "_")


METHODS: tuple[Method, ...] = tuple(
    Method(name, "nothing", False, make)
    for name, make in (
        ("peft linear", linear),
        ("peft ties", ties),
        ("peft dare", dare),
    )
)
