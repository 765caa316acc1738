"""A linear of the base with the experts beside it that stand on a shelf: computed by the compiled kernel.

Shapes: T tokens, S active pairs, r the rank of the expert at hand.
"""

from typing import Any

import torch
from torch import Tensor, nn

from moehub.errors import RouterError
from moehub.router.layer import MoELinear, Routing, Switchboard
from moehub.router.native import library
from moehub.router.native.library import Groups
from moehub.router.native.shelf import Shelf
from moehub.router.route import Route


class ShelvedLinear(MoELinear):
    """Reads the experts where their files are mapped, and adds to the linear's output in place."""

    def __init__(self, linear: nn.Module, *, key: str, shelf: Shelf, board: Switchboard) -> None:
        """Wrap a linear of the base; `key` is its name on the shelf."""
        super().__init__(linear, key=key, board=board, diagonal=shelf.diagonals.get(key))
        self.shelf = shelf
        self._record = shelf.record(key)
        self._dtype = shelf.dtype

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the kernel multiplies in."""
        return self._dtype

    def routed(self, routing: Routing, x: Tensor, y: Tensor) -> Tensor:
        """Return what every layer does; where nothing has to be converted, with as few calls as can be.

        A token alone feels each call: there are a hundred of these layers and more.
        """
        if torch.is_grad_enabled() or not (x.dtype == y.dtype == self._dtype and x.device.type == "cpu"):
            return super().routed(routing, x, y)
        if not y.is_contiguous():
            return super().routed(routing, x, y)
        flat = x.reshape(-1, x.shape[-1])
        route = routing.route(self.key, flat)
        groups = self.shelf.ready(route)
        if self.diagonal is not None and self.shelf.rescales(groups):
            self.diagonal(y.view(-1, y.shape[-1]), self.bias, route)
        library.add(self._record, groups, flat.contiguous(), y)
        return y

    def add(self, x: Tensor, y: Tensor, route: Route) -> Tensor:
        """Return y + Σ_e g_e·s_e·(x A_eᵀ) B_eᵀ; where nobody wants gradients, y itself is changed.

        Raises:
            RouterError: the tensors are not on the CPU.
        """
        if x.device.type != "cpu":
            raise RouterError(
                f"this MoE was loaded for the CPU and is on {x.device} now: load it there, with device_map='{x.device}'"
            )
        groups = self.shelf.ready(route)
        if self.diagonal is not None and self.shelf.rescales(groups):
            y = self.diagonal(y, self.bias, route)
        x, y = x.contiguous(), y.contiguous()
        if torch.is_grad_enabled() and (x.requires_grad or y.requires_grad or route.weights.requires_grad):
            added: Tensor = _Differentiable.apply(x, y, route.weights, groups, self)
            return added
        library.add(self._record, groups, x, y)
        return y

    def pair(self, expert: int) -> tuple[Tensor, Tensor, float] | None:
        """Return A [r, d_in], B [d_out, r] and the scale of an expert, or None where it has none here."""
        pair = self.shelf.pair(expert, self.key)
        return None if pair is None else (*pair, self.shelf.adapters[expert].scales[self.key])


class _Differentiable(torch.autograd.Function):
    """The kernel forward; backward expert by expert, for x, y and the gate's weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, weights: Tensor, groups: Groups, layer: ShelvedLinear) -> Tensor:
        ctx.save_for_backward(x, weights)
        ctx.groups, ctx.layer = groups, layer
        out = y.clone()
        library.add(layer._record, groups, x, out)  # noqa: SLF001 (this is the layer's own arithmetic)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weights = ctx.saved_tensors
        groups: Groups = ctx.groups
        of_x, of_weights = torch.zeros_like(x), torch.zeros_like(weights)
        for number, expert in enumerate(groups.experts):
            if (own := ctx.layer.pair(expert)) is None:
                continue
            A, B, scale = own
            rows = slice(groups.begins[number], groups.begins[number + 1])
            tokens, places = groups.tokens[rows], groups.pairs[rows]
            inner = gradient[tokens] @ B
            weight = (weights.flatten()[places] * scale).to(x.dtype)
            of_x.index_add_(0, tokens, (inner * weight[:, None]) @ A)
            if weights.requires_grad:
                dots = (inner * (x[tokens] @ A.T)).sum(-1, dtype=weights.dtype)
                of_weights.view(-1)[places] = scale * dots
        return of_x, gradient, of_weights if weights.requires_grad else None, None, None
