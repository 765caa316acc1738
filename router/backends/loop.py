"""The reference: expert by expert, the tokens that chose it."""

import torch
from torch import Tensor

from moehub.router.route import Route


def loop(x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    """Return y + Σ_e g_e·s_e·(x A_eᵀ) B_e for the experts each token chose.

    Args:
        x: input of the linear, [T, d_in].
        y: output of the linear, [T, d_out].
        route: experts and weights of each token.
        A: down projections, [E, r, d_in].
        B: up projections, transposed, [E, r, d_out].
        scale: LoRA scale of each expert, [E].
    """
    begin, pieces = 0, []
    for expert, size in enumerate(route.counts.tolist()):
        rows = slice(begin, begin + size)
        begin += size
        if size:
            weight = (route.sorted_weights[rows] * scale[expert]).to(x.dtype)
            inner = torch.nn.functional.linear(x[route.tokens[rows]], A[expert]) * weight[:, None]
            pieces.append(inner @ B[expert])
    return y.index_add(0, route.tokens, torch.cat(pieces)) if pieces else y
