"""Fold low-rank updates into a weight, a band of rows at a time: W' = round(W + Σ_e s_e·B_e·A_e).

A DoRA expert is folded alone, W' = round(d ⊙ (W + s·B·A)), in float32 (`moehub.experts.dora`).

The sum is computed in float32 and rounded once, to the type that is written (`plain`). From bfloat16 to bfloat16, a
processor that multiplies bfloat16 itself does that in one step and less than half the time (`split`): each factor is
the sum of two bfloat16 numbers, L = L₁ + L₂ and R = R₁ + R₂, and L·R = L₁R₁ + L₁R₂ + L₂R₁ but for L₂R₂, a 2⁻¹⁶th of
it, which is 2⁸ times smaller than what rounding W' loses. The processor adds W in float32 and rounds once, too.

Shapes: R rows and C columns of the stored weight (d_out, d_in; the other way round for a Conv1D), r ranks in all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from moehub.experts.adapter import Adapter
from moehub.experts.dora import factors as dora_factors

BAND = 1 << 19
"""Numbers in a band: few enough to stay in a core's cache, and enough for the arithmetic to run at full speed."""


@dataclass(frozen=True)
class Update:
    """The sum of scale·B·A over some adapters of one linear; nothing is computed before it is needed."""

    pairs: tuple[tuple[Tensor, Tensor, float], ...]
    """(A [r, d_in], B [d_out, r], scale) of each."""
    transposed: bool = False
    """Whether the weight lies as [d_in, d_out]."""
    magnitudes: Tensor | None = None
    """m [d_out], where this is one DoRA adapter."""

    @classmethod
    def of(cls, adapter: Adapter, linear: str, *, transposed: bool = False) -> "Update":
        """Return what one adapter makes of a linear that it changes."""
        pair = (*adapter.pairs[linear], adapter.scales[linear])
        return cls((pair,), transposed, adapter.magnitudes.get(linear))

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


class Workbench:
    """Memory for bands, used again and again: new pages for each would cost as much as the arithmetic."""

    def __init__(self) -> None:
        self._kept: dict[torch.dtype, Tensor] = {}

    def bands(self, weight: Tensor, change: Update | None, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield the rows of W + ΔW as `dtype`, in order; each band is valid until the next is asked for.

        Args:
            weight: W [R, C], of any float type; any shape where nothing is added.
            change: what is added to it; None to convert it alone.
            dtype: of the result.
        """
        flat = weight.reshape(1, -1) if weight.ndim < 2 else weight.flatten(0, -2)
        if change is None:
            return self.plain(flat, None, dtype)
        if change.magnitudes is not None:
            return self.rescaled(flat, change, change.magnitudes, dtype)
        if weight.dtype == dtype == torch.bfloat16 and multiplies_bfloat16():
            return self.split(flat, change.factors())
        return self.plain(flat, change.factors(), dtype)

    def plain(self, weight: Tensor, factors: tuple[Tensor, Tensor] | None, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield bands of W + left·right, computed in float32."""
        for begin, rows in _cut(weight):
            part = self._memory(rows.shape, torch.float32).copy_(rows)
            if factors is not None:
                part.addmm_(factors[0][begin : begin + len(rows)], factors[1])
            yield part if dtype == torch.float32 else self._memory(rows.shape, dtype).copy_(part)

    def rescaled(self, weight: Tensor, change: Update, magnitudes: Tensor, dtype: torch.dtype) -> Iterator[Tensor]:
        """Yield bands of d ⊙ (W + s·B·A), computed in float32 and rounded once.

        Raises:
            ExpertError: a row of W + s·B·A is zero.
        """
        left, right = change.factors()
        found = dora_factors(weight, left, right, magnitudes, transposed=change.transposed)
        begin = 0
        for part in self.plain(weight, (left, right), torch.float32):
            part.mul_(found if change.transposed else found[begin : begin + len(part), None])
            begin += len(part)
            yield part if dtype == torch.float32 else self._memory(part.shape, dtype).copy_(part)

    def split(self, weight: Tensor, factors: tuple[Tensor, Tensor]) -> Iterator[Tensor]:
        """Yield bands of W + left·right in bfloat16, from products of bfloat16 that are summed in float32."""
        (left, left_rest), (right, right_rest) = map(_halves, factors)
        left, right = torch.cat([left, left, left_rest], 1), torch.cat([right, right_rest, right])
        for begin, rows in _cut(weight):
            out = self._memory(rows.shape, torch.bfloat16)
            yield torch.addmm(rows, left[begin : begin + len(rows)], right, out=out)

    def _memory(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        if dtype not in self._kept or self._kept[dtype].numel() < shape.numel():
            self._kept[dtype] = torch.empty(shape.numel(), dtype=dtype)
        return self._kept[dtype][: shape.numel()].view(shape)


def multiplies_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 itself; others would do it one number after another."""
    return bool(torch.backends.mkldnn.is_available() and torch.cpu._is_avx512_bf16_supported())  # noqa: SLF001 (torch has no public way)


def _halves(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return two bfloat16 matrices whose sum is a float32 matrix but for 2⁻¹⁶ of it."""
    first = matrix.bfloat16()
    return first, (matrix - first.float()).bfloat16()


def _cut(weight: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield the first row's number and the rows of each band."""
    height = max(1, BAND // max(1, weight.shape[1]))
    for begin in range(0, len(weight), height):
        yield begin, weight[begin : begin + height]
