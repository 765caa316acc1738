"""Fold low-rank updates into a weight, a band of rows at a time: W' = round(W + Σ_e s_e·B_e·A_e).

The sum is computed in float32 and rounded once, to the type that is written. A band is small enough to stay in a
core's cache from the first step to the write.

Shapes: R rows and C columns of the stored weight (d_out, d_in; the other way round for a Conv1D), r ranks in all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BAND = 1 << 18
"""Numbers in a band: 1 MiB of float32."""


@dataclass(frozen=True)
class Update:
    """The sum of scale·B·A over some adapters of one linear; nothing is computed before it is needed."""

    pairs: tuple[tuple[Tensor, Tensor, float], ...]
    """(A [r, d_in], B [d_out, r], scale) of each."""
    transposed: bool = False
    """Whether the weight lies as [d_in, d_out]."""

    @property
    def shape(self) -> tuple[int, int]:
        """(R, C)."""
        A, B, _ = self.pairs[0]
        shape = B.shape[0], A.shape[1]
        return shape[::-1] if self.transposed else shape

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return two matrices whose product is the sum: float32 [R, r] and [r, C]."""
        left = torch.cat([B.float() * scale for _, B, scale in self.pairs], 1)
        right = torch.cat([A.float() for A, _, _ in self.pairs])
        return (right.T.contiguous(), left.T.contiguous()) if self.transposed else (left, right)


def bands(weight: Tensor, change: Update | None, dtype: torch.dtype) -> Iterator[Tensor]:
    """Yield the rows of W + ΔW as `dtype`, in order; each band is valid until the next is asked for.

    Args:
        weight: W [R, C], of any float type; any shape where nothing is added.
        change: what is added to it; None to convert it alone.
        dtype: of the result.
    """
    flat = weight.reshape(1, -1) if weight.ndim < 2 else weight.flatten(0, -2)
    rows, columns = flat.shape
    height = max(1, min(rows, BAND // max(1, columns)))
    left, right = (None, None) if change is None else change.factors()
    wide, rounded = torch.empty(height, columns), torch.empty(height, columns, dtype=dtype)
    for begin in range(0, rows, height):
        size = min(height, rows - begin)
        part = wide[:size].copy_(flat[begin : begin + size])
        if left is not None and right is not None:
            part.addmm_(left[begin : begin + size], right)
        yield rounded[:size].copy_(part)
