"""The default router: whose words are these?

Every contributor's log probability of each token and of each hashed pair of neighbouring tokens, smoothed
toward the null's distribution q with K pseudo-counts (Dirichlet prior; MacKay and Peto 1995):

    log P_e(x) = log((c_e(x) + K·q(x)) / (n_e + K)) = log q(x) + log(K / (n_e + K)) + log(1 + c_e(x) / (K·q(x)))

The first term is the same for all and drops out of the posterior, the second is a number per contributor,
the third is zero wherever the contributor never used x: tables are sparse, and a contributor's depends on
nothing but its own counts and the null's. Values are rounded to multiples of 2⁻¹² nats, so that they do not
depend on which of two equally good logarithms a machine has.

Shapes: B batch, T tokens, V vocabulary, P pair buckets, E columns of the gate (the null expert's last).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from moehub.experts.statistics import Statistics, pair_bucket
from moehub.router.method import NULL, Contributor, Tables
from moehub.router.settings import RouterSettings
from moehub.router.window import Memory, Window

_GRID = 4096
_NOTHING = -1
"""The last token where there was none."""


class Evidence:
    """Token and pair counts."""

    name = "evidence"
    kind: Literal["evidence", "layer"] = "evidence"
    local = True

    def lacks(self, statistics: Statistics | None) -> str | None:
        """Return what is missing: the counts."""
        if statistics is None:
            return "it was published without router statistics: train it with moehub, or use --router arrow"
        if not int(statistics.unigrams.sum()):
            return "its router statistics count nothing: lower suppress_below, or train it on more text"
        return None

    def solve(
        self, contributors: Sequence[Contributor], null: Statistics | None, settings: RouterSettings
    ) -> dict[str, Tables]:
        """Return the sparse tables of each contributor."""
        owners = {one.name: one.statistics for one in contributors} | {NULL: null}
        unigrams, pairs = (None, None) if null is None else (_generic(null.unigrams), _generic(null.pairs))
        return {
            name: {
                **_table("unigrams", counted.unigrams, unigrams, settings.unigram_strength),
                **_table("pairs", counted.pairs, pairs, settings.pair_strength),
            }
            for name, counted in owners.items()
            if counted is not None
        }

    def load(self, tables: Mapping[str, Tables], names: Sequence[str], settings: RouterSettings) -> nn.Module:
        """Return the look-up of log evidence."""
        columns = [tables[name] for name in names]
        unigrams, unigram_bias = _stack("unigrams", columns)
        pairs, pair_bias = _stack("pairs", columns)
        # Ids outside the vocabulary, as padded embeddings have, find an empty row: no evidence.
        unigrams = nn.functional.pad(unigrams, (0, 0, 0, 1))
        return EvidenceLookup(unigrams, unigram_bias, pairs, pair_bias, kappa=settings.kappa, pair=settings.pair_weight)


class EvidenceLookup(nn.Module):
    """Two rows of tables for each token."""

    def __init__(
        self, unigrams: Tensor, unigram_bias: Tensor, pairs: Tensor, pair_bias: Tensor, *, kappa: float, pair: float
    ) -> None:
        """Keep the tables: unigrams [V + 1, E] (the last row for ids outside the vocabulary), pairs [P, E]."""
        super().__init__()
        self.kappa, self.pair = kappa, pair
        self.unigrams = nn.Parameter(unigrams, requires_grad=False)
        self.unigram_bias = nn.Parameter(unigram_bias, requires_grad=False)
        self.pairs = nn.Parameter(pairs, requires_grad=False)
        self.pair_bias = nn.Parameter(pair_bias, requires_grad=False)

    def begin(self, batch: int, device: torch.device) -> Memory:
        """Return the memory before the first token: the last token, int64 [B]."""
        return (torch.full((batch,), _NOTHING, dtype=torch.int64, device=device),)

    def forward(self, window: Window, memory: Memory) -> tuple[Tensor, Memory]:
        """Return the tempered log evidence of each token, float32 [B, T, E], and the memory after the last."""
        (last,) = memory
        ids = torch.where(window.mask, window.ids, _NOTHING)
        previous = torch.cat([last[:, None], ids[:, :-1]], 1)
        known = ids.clamp(0, len(self.unigrams) - 1)
        single = self.unigrams[known] + self.unigram_bias
        double = self.pairs[pair_bucket(previous, ids, len(self.pairs))] + self.pair_bias
        paired = (previous != _NOTHING) & window.mask
        evidence = single * window.mask[..., None] + self.pair * double * paired[..., None]
        return self.kappa * evidence, (ids[:, -1],)


def _generic(counts: Tensor) -> Tensor:
    """Return q, the null's distribution with one added to every count, float64 [V or P]."""
    return (counts + 1).double() / (counts.sum() + len(counts))


def _table(part: str, counts: Tensor, q: Tensor | None, strength: float) -> Tables:
    """Return log(1 + c/(K·q)) where c > 0, and log(K / (n + K)), for one kind of counts [V or P]; no q is uniform."""
    index = counts.nonzero().flatten()
    smoothed = strength / len(counts) if q is None else strength * q[index]
    value = torch.log1p(counts[index].double() / smoothed)
    bias = torch.log(strength / (counts.sum().double() + strength))
    return {
        f"{part}.index": index.to(torch.int32),
        f"{part}.value": _round(value),
        f"{part}.bias": _round(bias),
        f"{part}.size": torch.tensor(len(counts)),
    }


def _round(value: Tensor) -> Tensor:
    return (torch.round(value * _GRID) / _GRID).float()


def _stack(part: str, columns: Sequence[Tables]) -> tuple[Tensor, Tensor]:
    """Return the dense table [size, E] and the biases [E] of one kind of counts."""
    size = int(columns[0][f"{part}.size"])
    dense = torch.zeros(size, len(columns))
    for number, column in enumerate(columns):
        dense[column[f"{part}.index"].long(), number] = column[f"{part}.value"]
    return dense, torch.stack([column[f"{part}.bias"] for column in columns])
