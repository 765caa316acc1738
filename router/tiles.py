"""Tokens sorted by expert and cut into tiles, with sizes that do not depend on who was chosen.

Nothing here waits for the device: an inactive pair goes into a bin of its own, number E, instead of being left out.
So the launches that follow are the same for every route of a shape, which is also what a CUDA graph needs.

Shapes: T tokens, K experts per token, E experts, M tiles of a slot at most.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_SMALLEST, _LARGEST = 16, 64


@dataclass(frozen=True)
class Tiles:
    """For each of a token's K slots, all tokens sorted by the expert that stands in it."""

    order: Tensor
    """Tokens of a slot, sorted by expert and then by number; inactive ones come last: int32 [K, T]."""
    ends: Tensor
    """Where in `order` each expert's tokens end, the last column is that of the inactive ones: int32 [K, E + 1]."""
    table: Tensor
    """Expert (E: inactive), beginning and end in `order` of each tile, equal if it is unused: int32 [K, M, 3]."""
    size: int
    """Tokens in a tile, at most."""

    @classmethod
    def of(cls, indices: Tensor, weights: Tensor, experts: int) -> "Tiles":
        """Sort and cut.

        Args:
            indices: expert of each pair, int64 [T, K].
            weights: weight of each pair, [T, K]; 0: inactive.
            experts: E.
        """
        tokens, bins = len(indices), experts + 1
        size = _size(tokens, experts)
        keys_KT = indices.masked_fill(weights.detach() == 0, experts).t().contiguous()
        sorted_KT, order_KT = keys_KT.sort(dim=-1, stable=True)
        wanted_KG = torch.arange(bins, device=indices.device).expand(len(keys_KT), -1).contiguous()
        ends_KG = torch.searchsorted(sorted_KT, wanted_KG, right=True)
        starts_KG = torch.nn.functional.pad(ends_KG[:, :-1], (1, 0))
        tiles_KG = (ends_KG - starts_KG + size - 1) // size
        until_KG = tiles_KG.cumsum(-1)
        number_KM = torch.arange(tokens // size + min(bins, tokens), device=indices.device).expand(len(keys_KT), -1)
        bin_KM = torch.searchsorted(until_KG, number_KM.contiguous(), right=True)
        used_KM, bin_KM = bin_KM < bins, bin_KM.clamp_max(experts)
        within_KM = number_KM - (until_KG - tiles_KG).gather(1, bin_KM)
        first_KM = (starts_KG.gather(1, bin_KM) + within_KM * size) * used_KM
        last_KM = torch.minimum(first_KM + size, ends_KG.gather(1, bin_KM)) * used_KM
        table_KM3 = torch.stack([bin_KM, first_KM, last_KM], -1)
        return cls(order_KT.to(torch.int32), ends_KG.to(torch.int32), table_KM3.to(torch.int32), size)


def _size(tokens: int, experts: int) -> int:
    """Return about as many tokens as an expert gets of a slot, a power of two within what a tile may hold."""
    each = max(tokens // experts, 1)
    return min(max(1 << (each - 1).bit_length(), _SMALLEST), _LARGEST)
