"""PEFT's LoRA linear, whose float32 weights are multiplied in the dtype of what comes in.

PEFT casts activations up to the weights, which costs a bfloat16 base a quarter of its speed; here the weights,
which are small, are cast down. They stay float32 for the optimizer, so that small steps are not rounded away.

Shapes: T tokens, d_in and d_out of the linear, r the rank.
"""

from typing import Any

import torch
from peft.tuners import lora
from torch import Tensor


class LowRankLinear(lora.Linear):
    """PEFT's layer in all but the training of one plain adapter."""

    def forward(self, x: Tensor, *arguments: Any, **options: Any) -> Tensor:
        """Return W x + s B A dropout(x): [..., d_out]; outside of training, what PEFT makes of it."""
        active = self.active_adapters
        plain = self.training and not (arguments or options or self.disable_adapters or self.merged)
        if not plain or len(active) != 1 or active[0] not in self.lora_A or active[0] in self.lora_variant:
            return super().forward(x, *arguments, **options)
        (name,) = active
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        dropped = self.lora_dropout[name](x)
        result: Tensor = _Added.apply(self.base_layer(x), dropped, down, up, self.scaling[name])
        return result


class _Added(torch.autograd.Function):
    """base + s · x Aᵀ Bᵀ, in the place of base: as few passes over [T, d_out] as there can be."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, x: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
        """Take base [..., d_out], x [..., d_in], A [r, d_in], B [d_out, r]; return [..., d_out]."""
        ctx.scale, ctx.dtype = scale, down.dtype
        down, up, flat = down.to(x.dtype), up.to(x.dtype), x.reshape(-1, x.shape[-1])
        inner = (flat @ down.T).mul_(scale)
        ctx.mark_dirty(base)
        ctx.save_for_backward(flat, inner, down, up)
        base.view(-1, base.shape[-1]).addmm_(inner, up.T)
        return base

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Take the gradient of the result; return those of base, x, A and B, the latter in their own dtype."""
        flat, inner, down, up = ctx.saved_tensors
        _, for_x, for_down, for_up, _ = ctx.needs_input_grad
        outer = gradient.reshape(-1, gradient.shape[-1])
        within = (outer @ up).mul_(ctx.scale)
        return (
            gradient,
            (within @ down).view(*gradient.shape[:-1], -1) if for_x else None,
            (within.T @ flat).to(ctx.dtype) if for_down else None,
            (outer.T @ inner).to(ctx.dtype) if for_up else None,
            None,
        )
