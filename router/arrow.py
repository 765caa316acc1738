"""Arrow: data-free routing within each linear by the direction that an adapter amplifies most.

The prototype of an expert at a linear is the first right singular vector v of B·A; a token's logits are |x·v|
(Ostapenko et al. 2024, "Towards Modular LLMs by Building and Reusing a Library of LoRAs", section 4). Of a DoRA it is
the same: what that makes of the base's rows would need the base.

Shapes: T tokens, E experts, r rank.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from moehub.experts.statistics import Statistics
from moehub.router.method import Contributor, Tables
from moehub.router.route import Route
from moehub.router.settings import RouterSettings


class Arrow:
    """Needs nothing but the adapters; knows no null expert."""

    name = "arrow"
    kind: Literal["evidence", "layer"] = "layer"
    local = True

    def lacks(self, statistics: Statistics | None) -> str | None:  # noqa: ARG002 (part of the signature)
        """Return None: nothing is needed."""
        return None

    def solve(
        self,
        contributors: Sequence[Contributor],
        null: Statistics | None,  # noqa: ARG002 (part of the signature)
        settings: RouterSettings,  # noqa: ARG002 (part of the signature)
    ) -> dict[str, Tables]:
        """Return one prototype [d_in] for each linear of each contributor."""
        return {one.name: {key: prototype(A, B) for key, (A, B) in one.adapter().items()} for one in contributors}

    def load(self, tables: Mapping[str, Tables], names: Sequence[str], settings: RouterSettings) -> nn.Module:
        """Return the layers' gate."""
        return ArrowGate({name: tables[name] for name in names}, settings)


class ArrowGate(nn.Module):
    """A gate that looks at the input of each linear."""

    def __init__(self, tables: Mapping[str, Tables], settings: RouterSettings) -> None:
        """Stack the prototypes of each linear: [E, d_in], zero for experts that leave it alone."""
        super().__init__()
        self.settings = settings
        self.experts = len(tables)
        keys = sorted({key for parts in tables.values() for key in parts})
        self.keys = {key: f"prototypes_{number}" for number, key in enumerate(keys)}
        for key, attribute in self.keys.items():
            width = next(len(parts[key]) for parts in tables.values() if key in parts)
            rows = [parts.get(key, torch.zeros(width)) for parts in tables.values()]
            self.register_parameter(attribute, nn.Parameter(torch.stack(rows), requires_grad=False))

    def route(self, key: str, x: Tensor) -> Route:
        """Return the route for one linear from its input x [T, d_in]."""
        prototypes: Tensor = getattr(self, self.keys[key])
        logits = (x.to(prototypes.dtype) @ prototypes.T).abs() / self.settings.arrow_temperature
        absent = ~prototypes.any(-1)
        gate = logits.masked_fill(absent, -torch.inf).softmax(-1)
        return Route.select(gate, top_k=self.settings.top_k, threshold=self.settings.threshold, has_null=False)


def prototype(A: Tensor, B: Tensor) -> Tensor:
    """Return the first right singular vector of B·A, float32 [d_in], from A [r, d_in] and B [d_out, r].

    It is Q v with A^T = Q R and v the first right singular vector of the thin B Rᵀ; its sign is made
    canonical (the largest entry positive), because a singular vector has none of its own.
    """
    Q, R = torch.linalg.qr(A.double().T)
    _, _, V = torch.linalg.svd(B.double() @ R.T, full_matrices=False)
    vector = Q @ V[0]
    return (vector * vector[vector.abs().argmax()].sign()).float()
