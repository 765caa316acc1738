"""DoRA: a weight whose rows keep a length of their own, whatever the low-rank update does to their direction.

    W' = d ⊙ (W + s·B·A)   with   d = m / ‖W + s·B·A‖, norms of rows (Liu et al. 2024, "DoRA: Weight-Decomposed
    Low-Rank Adaptation", section 4)

and so W'x = W·x + (d − 1) ⊙ W·x + s·(d ⊙ B)·A·x: a LoRA whose B is d ⊙ B, and one factor for each of the linear's own
outputs, its bias left out. d needs the base's weight, so it is computed where expert and base meet, in float32.

Shapes: d_out, d_in of a linear; R rows and C columns of its weight as it is stored, r rank.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from moehub.errors import BaseModelError, ExpertError
from moehub.experts.adapter import Adapter

_BAND = 1 << 17
"""Numbers of a weight that are looked at at once: they stay in a core's cache."""


class Factors(Mapping[str, Tensor]):
    """d of each linear of a DoRA expert, float32 [d_out]; computed when it is asked for first, and kept."""

    def __init__(self, adapter: Adapter, linears: Mapping[str, nn.Module]) -> None:
        """Keep the adapter and the base's linears.

        Args:
            adapter: of a DoRA expert.
            linears: name → linear of the base, at least those that the adapter changes.

        Raises:
            BaseModelError: a weight is quantised, or not in memory.
        """
        self._adapter, self._linears = adapter, linears
        self._known: dict[str, Tensor] = {}
        for linear in adapter.magnitudes:
            weight: Tensor = linears[linear].weight  # type: ignore[assignment]
            if not weight.is_floating_point() or weight.is_meta:
                stored = "is not in memory" if weight.is_meta else f"is stored as {weight.dtype}"
                raise BaseModelError(
                    f"the weight of {linear!r} {stored}, and a DoRA expert rescales its rows: load the base in "
                    "bfloat16 or float32, whole, or leave the expert out"
                )

    @torch.no_grad()
    def __getitem__(self, linear: str) -> Tensor:
        """Return d.

        Raises:
            ExpertError: the adapter is of another shape than the linear, or d is not finite.
        """
        if linear not in self._known:
            module, adapter = self._linears[linear], self._adapter
            weight: Tensor = module.weight.detach()  # type: ignore[operator]
            A, B = (one.to(weight.device, torch.float32) for one in adapter.pairs[linear])
            transposed = isinstance(module, Conv1D)
            _require_fit(linear, (B.shape[0], A.shape[1]), tuple(weight.shape[::-1] if transposed else weight.shape))
            left, right = B * adapter.scales[linear], A
            sides = (right.T, left.T) if transposed else (left, right)
            self._known[linear] = factors(weight, *sides, adapter.magnitudes[linear], transposed=transposed)
        return self._known[linear]

    def __iter__(self) -> Iterator[str]:
        return iter(self._adapter.magnitudes)

    def __len__(self) -> int:
        return len(self._adapter.magnitudes)


def factors(weight: Tensor, left: Tensor, right: Tensor, magnitudes: Tensor, *, transposed: bool) -> Tensor:
    """Return d, float32 [d_out], a band of rows at a time.

    Args:
        weight: W as it is stored, [R, C], of any float type.
        left: float32 [R, r].
        right: float32 [r, C]; the update of W is left·right.
        magnitudes: m [d_out].
        transposed: whether W lies as [d_in, d_out].

    Raises:
        ExpertError: d is not finite: a row of W + s·B·A is zero.
    """
    height, norm = max(1, _BAND // max(1, weight.shape[1])), torch.linalg.vector_norm
    memory = torch.empty(height, weight.shape[1], dtype=torch.float32, device=weight.device)
    norms: list[Tensor] = []
    for begin in range(0, len(weight), height):
        rows = weight[begin : begin + height]
        band = memory[: len(rows)].copy_(rows).addmm_(left[begin : begin + height], right)
        norms.append(norm(band, dim=0 if transposed else 1))
    lengths = norm(torch.stack(norms), dim=0) if transposed else torch.cat(norms)
    found = magnitudes.to(lengths.device, torch.float32) / lengths
    if not bool(torch.isfinite(found).all()):
        raise ExpertError(
            f"a DoRA expert divides by the length of a row that is zero, in a linear of {len(found)} outputs: train "
            "it as a plain LoRA, or without that linear"
        )
    return found


def _require_fit(linear: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ExpertError(
            f"the update of {linear!r} has the shape {found}, expected {expected}: the expert was trained on another "
            "base"
        )
