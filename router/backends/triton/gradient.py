"""The sparse layer with gradients: backward is made of the forward's own passes.

With u = dy·B_eᵀ and z = A_e·x for a pair (token, expert) of weight g and scale s:
dx = Σ g·s·u·A_e · dA_e = Σ g·s·uᵀx · dB_e = Σ g·s·zᵀdy · dg = s·⟨u, z⟩ · ds_e = Σ g·⟨u, z⟩ · dy = dy.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from moehub.router.backends.triton.launch import expand, outer, shrink
from moehub.router.tiles import Tiles


class SparseLora(torch.autograd.Function):
    """What `loop` computes, for x, y, A, B, scale, weights, indices and tiles."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        """Return [T, d_out], and keep x·A_eᵀ of every pair."""
        x, y, A, B, scale, weights, indices, tiles = given
        inner = shrink(x, A, tiles, zeroed=ctx.needs_input_grad[4] or ctx.needs_input_grad[5])
        ctx.save_for_backward(x, A, B, scale, weights, indices, inner)
        ctx.tiles = tiles
        return expand(y, inner, B, weights, scale, tiles)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *given: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients that are wanted, in the order of forward's arguments."""
        (dy,) = given
        x, A, B, scale, weights, indices, inner = ctx.saved_tensors
        wanted, tiles = ctx.needs_input_grad, ctx.tiles
        for_dots = wanted[4] or wanted[5]
        back = shrink(dy, B, tiles, zeroed=for_dots) if wanted[0] or wanted[2] or for_dots else None
        dx = expand(None, back, A, weights, scale, tiles) if wanted[0] and back is not None else None
        dA = outer(back, x, weights, scale, tiles) if wanted[2] and back is not None else None
        dB = outer(inner, dy, weights, scale, tiles) if wanted[3] else None
        ds, dg = _of_gates(back, inner, scale, weights, indices) if for_dots and back is not None else (None, None)
        return dx, dy if wanted[1] else None, dA, dB, ds if wanted[4] else None, dg, None, None


def _of_gates(back: Tensor, inner: Tensor, scale: Tensor, weights: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of the scales [E] and of the weights [T, K]; both are sums in a fixed order."""
    dots_TK = (back * inner).sum(-1).t()
    zeros = torch.zeros(len(indices), len(scale), dtype=torch.float32, device=scale.device)
    of_scale = zeros.scatter_add(1, indices, dots_TK * weights.float()).sum(0)
    return of_scale.to(scale.dtype), (dots_TK * scale[indices]).to(weights.dtype)


def differentiable(
    x: Tensor, y: Tensor, indices: Tensor, weights: Tensor, tiles: Tiles, *, A: Tensor, B: Tensor, scale: Tensor
) -> Tensor:
    """Return what `loop` returns, with its gradients."""
    return SparseLora.apply(x, y, A, B, scale, weights, indices, tiles)
