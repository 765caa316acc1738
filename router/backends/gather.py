"""For few tokens: each token's own adapters, copied out of the stacks and multiplied as one batch."""

import torch
from torch import Tensor

from moehub.router.backends.grouped import grouped
from moehub.router.route import Route

FEW = 64
"""More tokens than this are given to `grouped`: copying adapters for each of them costs more than sorting."""


def gather(x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    """Return what `loop` returns; nothing waits for the device, and the work grows with T·K, inactive pairs too."""
    if len(x) > FEW:
        return grouped(x, y, route, A=A, B=B, scale=scale)
    gates_TK = (route.weights * scale[route.indices]).to(x.dtype)
    stacked = A[route.indices].flatten(1, 2)
    inner_TK = torch.bmm(stacked, x[:, :, None]).view(*gates_TK.shape, -1) * gates_TK[..., None]
    return torch.baddbmm(y[:, None], inner_TK.flatten(1)[:, None], B[route.indices].flatten(1, 2))[:, 0]
