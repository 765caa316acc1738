"""Moehub 0.1's `evidence`, frozen: what the gate was before it was made anew.

With c_e(x) how often contributor e has a token, or a pair of tokens hashed into P buckets, n_e their sum, counts
below 3 left out, and q the distribution of the null's counts with one added to each:

    log P_e(x) = log((c_e(x) + K·q(x)) / (n_e + K)),   ℓ_t(e) = log P_e(x_t) + ½·log P_e(x_{t−1}, x_t)

with K = 500 for tokens and 30,000 for pairs (Dirichlet smoothing; MacKay and Peto 1995, "A hierarchical Dirichlet
language model"). The posterior is that of `benchmarks.quality.sticky` with κ = 0.3 and ρ = 0.02; its two largest stay,
those below 0.05 dropped. log q(x) is the same for all columns and left out.

Shapes: B batch, T tokens, V vocabulary, P buckets, C columns (nobody's last).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality.method import Batch, Method, Routed
from benchmarks.quality.sticky import Sticky
from benchmarks.quality.tuning import Objective, choose, grid
from benchmarks.quality.world import PAIR_BITS, World

KAPPA, RHO = 0.3, 0.02
TOKEN_STRENGTH, PAIR_STRENGTH = 500.0, 30_000.0
PAIR_WEIGHT = 0.5
RAREST = 3
_MULTIPLIER = 1000003
_ENTRY = 12
"""Bytes of a count that is not zero: an index of four and a count of eight."""


def released(world: World, top_k: int = 2) -> Routed:
    """Return the gate with the settings of 0.1."""
    counts = Counts.of(world)
    return Routed(world, Sticky(counts, KAPPA, RHO, top_k), counts.bytes)


def tuned(world: World) -> Routed:
    """Return the gate with κ and ρ chosen like those of the others."""
    counts = Counts.of(world)
    return choose(
        Objective.of(world),
        grid(kappa=(0.2, 0.3, 0.4, 0.6), rho=(0.01, 0.02, 0.05)),
        lambda setting: Routed(world, Sticky(counts, **setting), counts.bytes),
    )


@dataclass(frozen=True)
class Counts:
    """Log probabilities of tokens and pairs."""

    tokens: Tensor
    """float32 [V, C]."""
    pairs: Tensor
    """float32 [P, C]."""
    bytes: int
    """What one contributor sends, on average."""

    @classmethod
    def of(cls, world: World) -> "Counts":
        """Count everybody's text."""
        vocabulary = len(world.tokenizer)
        parties = [counted(world.documents(name), vocabulary, 1 << PAIR_BITS) for name in world.names]
        parties = [(_common(tokens), _common(pairs)) for tokens, pairs in parties]
        sent = sum(int((counts > 0).sum()) for party in parties for counts in party)
        parties.append(counted(world.generic_documents, vocabulary, 1 << PAIR_BITS))
        tokens, pairs = zip(*parties, strict=True)
        return cls(
            logarithms(tokens, TOKEN_STRENGTH), logarithms(pairs, PAIR_STRENGTH), _ENTRY * sent // len(world.names)
        )

    def __call__(self, batch: Batch) -> Tensor:
        """Return the evidence of each token, [B, T, C]."""
        evidence = self.tokens[batch.ids]
        paired = self.pairs[bucket(batch.ids[:, :-1], batch.ids[:, 1:], len(self.pairs))]
        evidence[:, 1:] += PAIR_WEIGHT * paired
        return evidence


def counted(documents: Sequence[Tensor], vocabulary: int, buckets: int) -> tuple[Tensor, Tensor]:
    """Return how often each token, int64 [V], and each bucket of pairs, int64 [P], occurs in documents."""
    tokens = torch.bincount(torch.cat(list(documents)), minlength=vocabulary)
    hashed = torch.cat([bucket(one[:-1], one[1:], buckets) for one in documents])
    return tokens, torch.bincount(hashed, minlength=buckets)


def bucket(previous: Tensor, current: Tensor, buckets: int) -> Tensor:
    """Return the bucket of each pair of tokens."""
    return (previous * _MULTIPLIER + current) % buckets


def logarithms(counts: Sequence[Tensor], strength: float) -> Tensor:
    """Return log P − log q for each column, float32 [V or P, C], from counts, the null's last."""
    generic = counts[-1] + 1
    q = generic.double() / generic.sum()
    return torch.stack(
        [((one + strength * q) / (one.sum() + strength) / q).log().float() for one in counts],
        -1,
    )


def _common(counts: Tensor) -> Tensor:
    return counts.where(counts >= RAREST, 0)


METHODS = (
    Method("evidence 0.1", "statistics", True, released),
    Method("evidence 0.1, top 1", "statistics", True, lambda world: released(world, 1)),
    Method("evidence 0.1, tuned", "statistics", True, tuned),
)
