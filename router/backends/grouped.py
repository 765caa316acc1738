"""Tokens sorted by expert once per forward, then one grouped multiplication for A and one for B."""

import torch
from torch import Tensor

from moehub.router.route import Route

_BYTES = 16
"""`grouped_mm` wants rows that begin at multiples of 16 bytes."""


def grouped(x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    """Return what `loop` returns; the work grows with the number of active pairs."""
    if not len(route.tokens):
        return y
    weight = (route.sorted_weights * scale[route.sorted_experts]).to(x.dtype)
    inner = grouped_mm(x[route.tokens], A.transpose(1, 2), route.offsets)
    outer = grouped_mm(inner * weight[:, None], B, route.offsets)
    return y.index_add(0, route.tokens, outer)


def grouped_mm(rows: Tensor, matrices: Tensor, offsets: Tensor) -> Tensor:
    """Multiply consecutive groups of rows [S, m] by their matrices [E, m, n], padding odd sizes with zeros."""
    columns = matrices.shape[-1]
    inner, outer = _missing(rows.shape[-1], rows.dtype), _missing(columns, rows.dtype)
    if inner or outer:
        rows = torch.nn.functional.pad(rows, (0, inner))
        matrices = torch.nn.functional.pad(matrices, (0, outer, 0, inner))
    return torch.nn.functional.grouped_mm(rows, matrices, offs=offsets)[:, :columns]


def _missing(size: int, dtype: torch.dtype) -> int:
    return -size % (_BYTES // dtype.itemsize)
