"""Noise that hides documents in counts: integers of the discrete Gaussian, drawn by the operating system's dice.

    P(k) ∝ exp(−k² / (2σ²)),   k an integer

No floating-point number is drawn: the cumulative probabilities are integers of 128 bits, computed with 60 decimal
digits, and a uniform integer of 128 bits from the operating system decides between them. What is drawn differs from the
exact distribution by less than 2⁻⁸⁰ in total variation for as many buckets as a file can have, and nothing of it can be
drawn again, neither from a training's seed nor otherwise.

Shapes: N numbers.
"""

import math
import secrets
from bisect import bisect_right
from decimal import Decimal, localcontext

import numpy as np
import torch
from torch import Tensor

_BITS = 128
_HALF = 64
_DIGITS = 60
_TAIL = 15
"""Standard deviations beyond which nothing is drawn: less than 2⁻¹⁶⁰ of the distribution lies there."""


def drawn(size: int, sigma: float) -> Tensor:
    """Return integers of the discrete Gaussian with parameter `sigma` and mean 0, int64 [N], never the same again."""
    bounds = _cumulative(sigma)
    high = np.array([bound >> _HALF for bound in bounds], np.uint64)
    first = np.frombuffer(secrets.token_bytes(8 * size), np.uint64)
    place = np.searchsorted(high, first, side="left")
    # Where the first half does not decide, which is next to never, the second one does.
    for open_place in np.flatnonzero(place != np.searchsorted(high, first, side="right")):
        whole = (int(first[open_place]) << _HALF) | secrets.randbits(_HALF)
        place[open_place] = bisect_right(bounds, whole)
    return torch.from_numpy(place.astype(np.int64) - len(bounds) // 2)


def _cumulative(sigma: float) -> list[int]:
    """Return 2^128 · P(K ≤ k) for k from the least to the last but one, in order."""
    most = math.ceil(_TAIL * sigma)
    with localcontext() as context:
        context.prec = _DIGITS
        square = Decimal(sigma) ** 2
        # exp(−(k+1)²/2σ²) is exp(−k²/2σ²) times a ratio that shrinks by the same factor every time.
        ratio, factor = (Decimal(-1) / (2 * square)).exp(), (Decimal(-1) / square).exp()
        weights = [Decimal(1)]
        for _ in range(most):
            weights.append(weights[-1] * ratio)
            ratio *= factor
        mirrored = [*reversed(weights[1:]), *weights]
        scale = Decimal(1 << _BITS) / sum(mirrored)
        running, bounds = Decimal(0), []
        for weight in mirrored[:-1]:
            running += weight
            bounds.append(min(int(running * scale), (1 << _BITS) - 1))
    return bounds
