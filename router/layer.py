"""The sparse layer: a linear of the base with the experts' adapters beside it.

Shapes: E experts, r rank (the largest, others padded with zeros), T tokens (batch and time flattened).
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from moehub.router.backends import Backend
from moehub.router.diagonal import Diagonal
from moehub.router.route import Route


class Routing(Protocol):
    """Where the tokens of the forward under way go."""

    def route(self, key: str, x: Tensor) -> Route:
        """Return the route for the linear called `key`, whose input is x [T, d_in]."""


class Switchboard:
    """What the gate tells the layers: one object shared by a MoE's layers, set before each forward."""

    def __init__(self, backend: Backend | None = None) -> None:
        self.backend = backend
        """What computes layers whose experts are stacked; None where there are none."""
        self.routing: Routing | None = None
        """None: every layer is its linear of the base."""


class MoELinear(nn.Module):
    """y = W x + Σ_e g_e·s_e·B_e A_e x over the experts that the switchboard's route names.

    How the experts are held, and so what adds them, is a subclass's own. Of a DoRA expert B_e is d_e ⊙ B_e, and
    g_e·(d_e − 1) ⊙ W x is added (`moehub.experts.dora`).
    """

    def __init__(self, linear: nn.Module, *, key: str, board: Switchboard, diagonal: Diagonal | None = None) -> None:
        """Wrap a linear of the base.

        Args:
            linear: maps [..., d_in] to [..., d_out].
            key: the linear's name in the base.
            board: where the route of the forward under way is found.
            diagonal: what DoRA experts make of W x; None where there are none.
        """
        super().__init__()
        self.diagonal = diagonal
        self.linear = linear
        self.key = key
        self.board = board

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the experts' arithmetic."""
        raise NotImplementedError

    def add(self, x: Tensor, y: Tensor, route: Route) -> Tensor:
        """Return y [T, d_out] with the experts' contributions for x [T, d_in] added, both of the layer's dtype."""
        raise NotImplementedError

    @property
    def weight(self) -> Tensor:
        """The base's own weight: some models look at its dtype."""
        return self.linear.weight  # type: ignore[return-value]

    @property
    def bias(self) -> Tensor | None:
        """The base's own bias."""
        return self.linear.bias  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Return the linear's output with the experts' contributions added, [..., d_out]."""
        y: Tensor = self.linear(x)
        return y if self.board.routing is None else self.routed(self.board.routing, x, y)

    def routed(self, routing: Routing, x: Tensor, y: Tensor) -> Tensor:
        """Return the linear's output y [..., d_out] for x [..., d_in] with what the routed experts contribute."""
        flat, rows, dtype = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1]), self.dtype
        route = routing.route(self.key, flat).to(x.device)
        return self.add(flat.to(dtype), rows.to(dtype), route).to(y.dtype).view_as(y)


class StackedLinear(MoELinear):
    """The experts as two stacked tensors, which can be trained and live on any device."""

    def __init__(
        self,
        linear: nn.Module,
        *,
        key: str,
        A: Tensor,
        B: Tensor,
        scale: Tensor,
        board: Switchboard,
        diagonal: Diagonal | None = None,
    ) -> None:
        """Wrap a linear of the base.

        Args:
            linear: maps [..., d_in] to [..., d_out].
            key: the linear's name in the base.
            A: down projections, [E, r, d_in].
            B: up projections, transposed, [E, r, d_out].
            scale: LoRA scale of each expert, [E].
            board: where the route of the forward under way is found, and the backend.
            diagonal: what DoRA experts make of W x; None where there are none.
        """
        super().__init__(linear, key=key, board=board, diagonal=diagonal)
        self.A, self.B = nn.Parameter(A, requires_grad=False), nn.Parameter(B, requires_grad=False)
        self.register_buffer("scale", scale)
        self.scale: Tensor

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the stacks."""
        return self.A.dtype

    def add(self, x: Tensor, y: Tensor, route: Route) -> Tensor:
        """Return what the switchboard's backend makes of it."""
        assert self.board.backend is not None  # noqa: S101 (who stacks experts names a backend)
        if self.diagonal is not None:
            y = self.diagonal(y, self.bias, route)
        return self.board.backend(x, y, route, A=self.A, B=self.B, scale=self.scale.to(torch.float32))
