"""Counts with noise that hides any one document: (ε, δ) → standard deviations → counts.

Counts are private for documents: whether any one document was among the text changes the chance of whatever was
published by a factor of at most exp(ε), but for events of probability δ. A document's counts of one kind are clipped to
a Euclidean norm of √clip (`moehub.experts.statistics.count`); each bucket gets noise of the discrete Gaussian (Canonne,
Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy"), which for integers of sensitivity Δ is
ρ-zCDP with ρ = Δ²/(2σ²), and of several kinds together the sum of their ρ. From ρ follows, as they show,

    δ(ε) = inf over α > 1 of  exp((α − 1)(α·ρ − ε)) / (α − 1) · (1 − 1/α)^α

which is a little more cautious than what holds for the continuous Gaussian (Balle and Wang 2018), and true of integers.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable
from statistics import NormalDist

from torch import Tensor

from moehub.card import Privacy
from moehub.experts import noise, statistics
from moehub.experts.statistics import Statistics

_SHARES = {"unigrams": 0.8, "pairs": 0.15, "triples": 0.05}
"""How much of ρ each kind of counts spends: the gate needs tokens most, and pairs and triples drown first."""
_BY_CHANCE = 10
"""Empty buckets of each kind that are published for what noise alone makes of them, about."""
_SHRINKAGE = 2
"""Power of the share of tokens that are left, by which counts are made smaller; found on `benchmarks.privacy`."""
_STEPS = 200
_DIGITS = 100
"""Standard deviations are rounded up to a hundredth."""


def count(
    documents: Iterable[Tensor],
    *,
    tokenizer: str,
    vocabulary: int,
    pair_bits: int,
    triple_bits: int = 0,
    epsilon: float,
    delta: float,
    clip: int,
) -> Statistics:
    """Return (ε, δ)-private statistics of tokenised documents (int64 [T] each), new noise every time.

    Every bucket gets noise, also the empty ones. What is not clearly above the noise is then left out, and the less of
    the tokens is left, the smaller all counts are made, so that the gate relies less on them. Both look at nothing but
    the noisy counts and cost no privacy.

    Args:
        documents: their tokens.
        tokenizer: its digest.
        vocabulary: V.
        pair_bits: log2 of the number of pair buckets.
        triple_bits: the same of triples; 0 counts none.
        epsilon: ε.
        delta: δ.
        clip: the most that the squares of one document's counts of one kind add up to.

    Raises:
        ExpertError: a token id is outside the vocabulary.
    """
    counted = statistics.count(
        documents, tokenizer=tokenizer, vocabulary=vocabulary, pair_bits=pair_bits, triple_bits=triple_bits, clip=clip
    )
    private = calibrated(epsilon, delta, clip, counted.counts)
    noisy = {kind: counts + noise.drawn(len(counts), private.sigma[kind]) for kind, counts in counted.counts.items()}
    kept = {kind: counts.where(counts >= least(private.sigma[kind], len(counts)), 0) for kind, counts in noisy.items()}
    share = min(1.0, int(kept["unigrams"].sum()) / max(1, int(noisy["unigrams"].sum())))
    kept = {kind: (counts * share**_SHRINKAGE).round().long() for kind, counts in kept.items()}
    return dataclasses.replace(counted.with_counts(kept), private=private)


def least(sigma: float, buckets: int) -> int:
    """Return the least noisy count that is too much for noise alone, but for a few of so many buckets."""
    chance = _BY_CHANCE / max(2 * _BY_CHANCE, buckets)
    return max(1, math.ceil(sigma * NormalDist().inv_cdf(1 - chance)))


def calibrated(epsilon: float, delta: float, clip: int, kinds: Collection[str]) -> Privacy:
    """Return the noise that makes these kinds of counts together (ε, δ)-private for one document.

    Args:
        epsilon: ε.
        delta: δ.
        clip: the most that the squares of one document's counts of one kind add up to.
        kinds: of the counts that are published.
    """
    rho, whole = budget(epsilon, delta), sum(_SHARES[kind] for kind in kinds)
    exact = {kind: math.sqrt(clip * whole / (2 * rho * _SHARES[kind])) for kind in kinds}
    return Privacy(epsilon, delta, clip, {kind: math.ceil(sigma * _DIGITS) / _DIGITS for kind, sigma in exact.items()})


def spent(found: Privacy) -> float:
    """Return the ρ of noise, clipping and kinds of counts, whatever (ε, δ) they are said to be."""
    return sum(found.clip / (2 * sigma**2) for sigma in found.sigma.values())


def budget(epsilon: float, delta: float) -> float:
    """Return the largest ρ from which (ε, δ) follows."""
    low, high = 0.0, epsilon + 1.0  # ρ = ε would give δ near one half at best
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if loss(middle, epsilon) <= delta else (low, middle)
    return low


def loss(rho: float, epsilon: float) -> float:
    """Return the δ at ε of whatever is ρ-zCDP."""
    if rho <= 0:
        return 0.0
    # log δ is convex in log(α − 1) around its minimum: a search by thirds finds it.
    low, high = -20.0, 20.0
    for _ in range(_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        low, high = (low, right) if _log_loss(rho, epsilon, left) < _log_loss(rho, epsilon, right) else (left, high)
    return min(1.0, math.exp(min(0.0, _log_loss(rho, epsilon, low))))


def _log_loss(rho: float, epsilon: float, exponent: float) -> float:
    """Return log δ at α = 1 + exp(exponent); any α gives a bound that holds."""
    above = math.exp(exponent)
    alpha = 1 + above
    return above * (alpha * rho - epsilon) - exponent - alpha * math.log1p(1 / above)
