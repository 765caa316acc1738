"""How much more probable published counts are where something was counted than where it was not.

Without it, a bucket counts a Poisson number with mean λ; with it, so many more. Noise adds its variance, and then all
is taken as normal. What is not published is below the least that is.

Shapes: N buckets.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_IMPOSSIBLE = -30.0


@dataclass(frozen=True)
class Published:
    """One kind of counts as an attacker sees it."""

    counts: Tensor
    """int64 [H]."""
    expected: Tensor
    """λ of each bucket, float64 [H], above 0."""
    sigma: float
    """Of the noise; 0: there is none."""
    hides: bool
    """Whether small counts are left out."""

    @property
    def least(self) -> float:
        """The least count that is published."""
        shown = self.counts[self.counts > 0]
        return float(shown.min()) if self.hides and len(shown) else 1.0

    def ratio(self, places: Tensor, added: Tensor) -> Tensor:
        """Return log P(counts | `added` were counted too) − log P(counts | they were not), float64 [N].

        Args:
            places: the buckets, int64 [N].
            added: how often each would be counted, int64 [N], 1 or more.
        """
        counts, expected, more = self.counts[places].double(), self.expected[places], added.double()
        shown, hidden = (_normal if self.sigma else _poisson)(counts, expected, more, self.least, self.sigma)
        unseen = (counts == 0) & (self.hides or bool(self.sigma))
        return torch.where(unseen, hidden, shown).clamp_min(_IMPOSSIBLE)


def _poisson(counts: Tensor, expected: Tensor, more: Tensor, least: float, _: float) -> tuple[Tensor, Tensor]:
    left = (counts - more).clamp_min(0)
    shown = torch.lgamma(counts + 1) - torch.lgamma(left + 1) - more * expected.log()
    room = least - 1 - more
    within, below = (
        torch.special.gammaincc(most.clamp_min(0) + 1, expected) for most in (room, torch.full_like(more, least - 1))
    )
    hidden = (within / below).log()
    return shown.where(counts >= more, _IMPOSSIBLE), hidden.where(room >= 0, _IMPOSSIBLE)


def _normal(counts: Tensor, expected: Tensor, more: Tensor, least: float, sigma: float) -> tuple[Tensor, Tensor]:
    deviation = (expected + sigma**2).sqrt()
    excess = counts - expected
    shown = more * (2 * excess - more) / (2 * deviation**2)
    room = (least - 0.5 - expected) / deviation
    hidden = torch.special.log_ndtr(room - more / deviation) - torch.special.log_ndtr(room)
    return shown, hidden
