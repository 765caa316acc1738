"""How far two judges agree: beside the raw share, Cohen's kappa, which takes out what chance alone would bring.

κ = (p_o − p_e) / (1 − p_e), p_o the share of equal verdicts, p_e = Σ_k p_k q_k that of two judges who give each verdict
as often as these and know nothing (Cohen, A Coefficient of Agreement for Nominal Scales, 1960).

Shapes: K verdicts that occur, R resamples.
"""

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 1000
"""Of a bootstrap."""


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same items."""

    items: int
    raw: float
    """Share of equal verdicts."""
    kappa: float | None
    """Cohen's; None where both say the same one thing everywhere, so that chance explains all."""
    low: float | None
    """Of the 95 % interval of kappa, over resampled items; None as kappa."""
    high: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return asdict(self)


def agreement(
    one: Sequence[Hashable], other: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0
) -> Agreement | None:
    """Return how far two judges agree, with a bootstrap's percentile interval; None where there is no item.

    Args:
        one: verdicts of a judge, item by item.
        other: verdicts of the other on the same items.
        resamples: of the bootstrap.
        seed: of its draws.
    """
    if not one:
        return None
    kinds = {verdict: number for number, verdict in enumerate(dict.fromkeys([*one, *other]))}
    counts_KK = np.zeros((len(kinds), len(kinds)))
    for first, second in zip(one, other, strict=True):
        counts_KK[kinds[first], kinds[second]] += 1
    kappa = float(_kappa(counts_KK[None])[0])
    raw = float(np.trace(counts_KK)) / len(one)
    if np.isnan(kappa):
        return Agreement(len(one), raw, None, None, None)
    drawn = np.random.default_rng(seed).multinomial(len(one), counts_KK.ravel() / len(one), size=resamples)
    found = _kappa(drawn.reshape(resamples, *counts_KK.shape).astype(float))
    low, high = np.quantile(found[~np.isnan(found)], (0.025, 0.975))
    return Agreement(len(one), raw, kappa, float(low), float(high))


def kappa(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Return Cohen's kappa of two judges; None where it is not defined."""
    found = agreement(one, other, resamples=1)
    return None if found is None else found.kappa


def _kappa(counts_RKK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return kappa of each table of counts, [R]; NaN where chance explains all."""
    shares = counts_RKK / counts_RKK.sum((1, 2), keepdims=True)
    observed = np.trace(shares, axis1=1, axis2=2)
    chance = (shares.sum(2) * shares.sum(1)).sum(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(chance < 1 - 1e-12, (observed - chance) / (1 - chance), np.nan)
