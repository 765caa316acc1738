"""Routing in each linear by what the adapters amplify, without any data: moehub's own `arrow`, and SpectR.

Arrow scores an expert by |x·v|, v the first right singular vector of B·A (Ostapenko et al. 2024, "Towards Modular
LLMs by Building and Reusing a Library of LoRAs", section 4). SpectR keeps all of the spectrum: with B·A = U Σ Vᵀ an
expert's score is ‖Σ Vᵀ x‖₂ (Fleshman and Van Durme 2025, "SpectR: Dynamically Composing LM Experts with Spectral
Routing", section 3). In both, the k largest go through a softmax.

Shapes: T tokens, E experts, r rank.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality.method import Layered, Method
from benchmarks.quality.tuning import Objective, choose, grid
from benchmarks.quality.world import World
from moehub.router.method import Contributor, registered
from moehub.router.route import Route
from moehub.router.settings import RouterSettings

TOP_K = (1, 2, 4)
TEMPERATURES = (0.3, 1.0, 3.0)


def arrow(world: World) -> Layered:
    """Return moehub's own registration, `--router arrow`."""
    method = registered()["arrow"]
    adapters = world.moe.parts.adapters
    contributors = [
        Contributor(name, None, lambda adapter=adapter: adapter.pairs)  # type: ignore[misc]
        for name, adapter in zip(world.names, adapters, strict=True)
    ]
    tables = method.solve(contributors, None, RouterSettings(method="arrow"))

    def make(setting: Mapping[str, float]) -> Layered:
        settings = RouterSettings(
            method="arrow",
            top_k=int(setting["top_k"]),
            arrow_temperature=setting["temperature"],
            threshold=0.0,
        )
        gate = method.load(tables, world.names, settings)
        return Layered(world, lambda _: gate)  # type: ignore[arg-type,return-value]

    return choose(Objective.of(world), grid(top_k=TOP_K, temperature=TEMPERATURES), make)


def spectr(world: World) -> Layered:
    """Return SpectR."""
    adapters = world.moe.parts.adapters
    spectra = {
        key: torch.stack([spectrum(*adapter.pairs[key]) * adapter.scales[key] for adapter in adapters])
        for key in adapters[0].pairs
    }
    return choose(
        Objective.of(world),
        grid(top_k=TOP_K, temperature=TEMPERATURES),
        lambda setting: Layered(world, lambda _: Spectral(spectra, **setting)),
    )


@dataclass(frozen=True)
class Spectral:
    """Decides in each linear by the length of Σ Vᵀ x."""

    spectra: Mapping[str, Tensor]
    """Σ Vᵀ of every expert at each linear, [E, r, d_in]."""
    top_k: int
    temperature: float

    def route(self, key: str, x: Tensor) -> Route:
        """Return the route for one linear from its input x [T, d_in]."""
        weights, indices = (self.scores(key, x) / self.temperature).topk(min(self.top_k, len(self.spectra[key])), -1)
        return Route(indices, weights.softmax(-1), len(self.spectra[key]))

    def scores(self, key: str, x: Tensor) -> Tensor:
        """Return ‖Σ Vᵀ x‖₂ of each expert, [T, E]."""
        spectra = self.spectra[key]
        inner = x.float() @ spectra.flatten(0, 1).T
        return inner.view(len(x), *spectra.shape[:2]).norm(dim=-1)


def spectrum(A: Tensor, B: Tensor) -> Tensor:
    """Return Σ Vᵀ of B·A, float32 [r, d_in], from A [r, d_in] and B [d_out, r]: Aᵀ = Q R, and the thin B Rᵀ's own."""
    Q, R = torch.linalg.qr(A.double().T)
    _, values, V = torch.linalg.svd(B.double() @ R.T, full_matrices=False)
    return (values[:, None] * V @ Q.T).float()


ARROW = Method("arrow", "nothing", True, arrow)
SPECTR = Method("spectr", "nothing", True, spectr)
