"""Text that nobody wrote: tokens drawn from counts, so that a check needs no text and no tokenizer.

A token follows the one before it with the probability that the hashed pairs give. Several pairs share a bucket; its
count is divided among them as if tokens did not depend on each other:

    P(c | p) ∝ pairs[bucket(p, c)] · f(c) / r[bucket(p, c)],     r[b] = Σ_{(p, c) in b} f(p)·f(c),

f the share of each token. r is a circular convolution, so one Fourier transform has all of it.

Shapes: V vocabulary, P pair buckets, R rows, T tokens.
"""

import torch
from torch import Tensor

from moehub.experts.statistics import Statistics, pair_bucket

_TINY = 1e-30


def drawn(statistics: Statistics, *, rows: int, length: int, seed: int = 0) -> Tensor:
    """Return tokens drawn from the counts, int64 [R, T], the same for the same counts and seed.

    The counts may not all be zero.
    """
    generator = torch.Generator().manual_seed(seed)
    chance = torch.rand(length, rows, 1, generator=generator, dtype=torch.float64)
    used = statistics.unigrams.nonzero().flatten()
    shares, buckets = shares_of(statistics.unigrams[used]), len(statistics.pairs)
    followed = statistics.pairs.double() / expected_pairs(statistics).clamp_min(_TINY)
    anywhere = shares.expand(rows, -1).cumsum(1)
    tokens = [used[_place(anywhere, chance[0])]]
    for step in chance[1:]:
        sums = (followed[pair_bucket(tokens[-1][:, None], used, buckets)] * shares).cumsum(1)
        # After a token that no pair begins with, any may come.
        tokens.append(used[_place(torch.where(sums[:, -1:] > 0, sums, anywhere), step)])
    return torch.stack(tokens, 1)


def _place(sums: Tensor, chance: Tensor) -> Tensor:
    """Return where in each row of running sums [R, V] a chance [R, 1] between 0 and 1 falls, int64 [R]."""
    return torch.searchsorted(sums, chance * sums[:, -1:], right=True)[:, 0].clamp_max(sums.shape[1] - 1)


def shares_of(counts: Tensor) -> Tensor:
    """Return counts as shares of their sum, float64."""
    counts = counts.double()
    return counts / counts.sum()


def expected_pairs(statistics: Statistics) -> Tensor:
    """Return the share of each bucket if tokens did not depend on each other, float64 [P]."""
    shares, buckets = shares_of(statistics.unigrams), len(statistics.pairs)
    every = torch.arange(len(shares))
    first, second = (
        torch.zeros(buckets, dtype=torch.float64).index_add(0, place, shares)
        for place in (pair_bucket(every, torch.zeros_like(every), buckets), every % buckets)
    )
    return torch.fft.irfft(torch.fft.rfft(first) * torch.fft.rfft(second), n=buckets).clamp_min(0)
