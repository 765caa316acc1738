"""What MegaBlocks' own extensions do, in torch: for where they cannot be built.

`sort`, `histogram` and `inclusive_cumsum` stand in for `megablocks_ops`, `gmm` for `grouped_gemm`. They are all that
the backend and the dropless layer of dense experts call.
"""

import torch
from torch import Tensor

from moehub.router.backends.grouped import grouped_mm


def sort(x: Tensor, end_bit: int, x_out: Tensor, iota_out: Tensor) -> None:  # noqa: ARG001 (part of the signature)
    """Write x [S], sorted, into `x_out` and where each value stood into `iota_out`; equal values keep their order."""
    values, places = x.sort(stable=True)
    x_out.copy_(values)
    iota_out.copy_(places)


def histogram(x: Tensor, num_bins: int) -> Tensor:
    """Return how often each number below `num_bins` stands in x [S], int32 [num_bins]."""
    counts = torch.zeros(num_bins, dtype=torch.int32, device=x.device)
    return counts.scatter_add_(0, x.long(), torch.ones_like(x, dtype=torch.int32))


def inclusive_cumsum(x: Tensor, dim: int, out: Tensor) -> None:
    """Write the running sum along a dimension into `out`."""
    torch.cumsum(x, dim, dtype=out.dtype, out=out)


def gmm(a: Tensor, b: Tensor, batch_sizes: Tensor, trans_b: bool = False) -> Tensor:
    """Multiply consecutive groups of rows a [S, m] by b [E, m, n], with `trans_b` [E, n, m].

    Args:
        a: the rows.
        b: a matrix for each group.
        batch_sizes: rows of each group, [E], on any device.
        trans_b: whether the matrices are transposed.
    """
    ends = batch_sizes.to(a.device).cumsum(0).to(torch.int32)
    product = grouped_mm(a, b.transpose(1, 2) if trans_b else b, ends)
    return product.contiguous()  # MegaBlocks' copies take every row to follow the one before
