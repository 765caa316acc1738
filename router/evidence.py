"""The default router: whose words are these?

Every contributor's log probability of each token, of each hashed pair of neighbouring tokens, and of each hashed
triple, smoothed toward the null's distribution q with pseudo-counts m(x) (Dirichlet prior; MacKay and Peto 1995):

    log P_e(x) = log((c_e(x) + m(x)) / (n_e + M)),   m(x) = max(K·q(x), λ),   M = Σ m
               = log m(x) + log(1 + c_e(x) / m(x)) − log(n_e + M)

The first term is the same for all and drops out of the posterior, the last is a number per contributor, the second is
zero wherever the contributor never used x: tables are sparse, and a contributor's depends on nothing but its own counts
and the null's. λ keeps what somebody happened to say a few times from deciding: among two who say the same things, a
rare token's counts differ by chance. The evidence of a token is the sum over the three kinds, each with a weight.

Generic text comes as a mixture of parts (`moehub.experts.faces`), each a column of its own; what they get is nobody's.

Values are rounded to multiples of 2⁻¹² nats, so that they do not depend on which of two equally good logarithms a
machine has.

Shapes: B batch, T tokens, V vocabulary, H buckets of one kind, E experts, C columns (the null's faces last).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from moehub.experts.statistics import Statistics, pair_bucket, triple_bucket
from moehub.router.method import NULL, Contributor, Tables, face, is_face
from moehub.router.settings import RouterSettings
from moehub.router.window import Memory, Window

_GRID = 4096


class Evidence:
    """Counts of tokens, pairs and triples."""

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
        """Return the sparse tables of each contributor, and of each face of the null."""
        owners = {one.name: one.statistics for one in contributors}
        faces = () if null is None else null.faces or (null,)
        owners |= {NULL if len(faces) == 1 else face(number): one for number, one in enumerate(faces)}
        return {name: _tables(counted, null, settings) for name, counted in owners.items() if counted is not None}

    def load(self, tables: Mapping[str, Tables], names: Sequence[str], settings: RouterSettings) -> nn.Module:
        """Return the look-up of log evidence; where `names` end with the null, its faces stand in its place."""
        experts = [name for name in names if name != NULL]
        generic = sorted(name for name in tables if is_face(name)) if len(experts) < len(names) else []
        columns = [tables[name] for name in [*experts, *generic]]
        weights = _weights(settings)
        kinds = [kind for kind in weights if all(f"{kind}.index" in column for column in columns)]
        lookups = {kind: Lookup(*_stack(kind, columns), weights[kind]) for kind in kinds}
        return EvidenceLookup(lookups, experts=len(experts), margin=settings.null_margin)


class Lookup(nn.Module):
    """The table of one kind of counts."""

    def __init__(self, values: Tensor, bias: Tensor, weight: float) -> None:
        """Keep the table [H, C], the columns' numbers [C], and the weight of this kind."""
        super().__init__()
        self.weight = weight
        self.values = nn.Parameter(values, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def forward(self, places: Tensor, present: Tensor) -> Tensor:
        """Return the weighted log evidence [B, T, C] of buckets [B, T], 0 where nothing is `present`."""
        return self.weight * (self.values[places] + self.bias) * present[..., None]


class EvidenceLookup(nn.Module):
    """One row of each table for each token."""

    def __init__(self, lookups: Mapping[str, Lookup], *, experts: int, margin: float) -> None:
        """Keep the tables by kind, and by how many nats a token the columns after the experts' are put back."""
        super().__init__()
        self.kinds = nn.ModuleDict(lookups)
        self.vocabulary, columns = lookups["unigrams"].values.shape
        self.register_buffer("generic", (torch.arange(columns) >= experts).float(), persistent=False)
        self.generic: Tensor
        self.margin = margin

    @property
    def numbers(self) -> tuple[str, ...]:
        """Settings that it can be tuned by."""
        found = {"pairs": "pair_weight", "triples": "triple_weight"}
        margin = ("null_margin",) if bool(self.generic.any()) else ()
        return ("kappa", *(name for kind, name in found.items() if kind in self.kinds), *margin)

    def act(self, settings: RouterSettings) -> None:
        """Weigh the kinds, and put the null back, as other settings say; while these are learned, they are tensors."""
        for kind, weight in _weights(settings).items():
            if kind in self.kinds:
                self.kinds[kind].weight = weight  # type: ignore[assignment]
        self.margin = settings.null_margin

    def begin(self, batch: int, device: torch.device) -> Memory:
        """Return the memory before the first token: the two last tokens, V where there was none, int64 [B, 2]."""
        return (torch.full((batch, 2), self.vocabulary, dtype=torch.int64, device=device),)

    def forward(self, window: Window, memory: Memory) -> tuple[Tensor, Memory]:
        """Return the tempered log evidence of each token, float32 [B, T, C], and the memory after the last."""
        (last,) = memory
        ids = torch.where(window.mask, window.ids, self.vocabulary)
        known = torch.cat([last, ids], 1)
        before, previous = known[:, :-2], known[:, 1:-1]
        # Ids outside the vocabulary, as padded embeddings have, are no evidence.
        inside = ids < self.vocabulary
        evidence = self.kinds["unigrams"](ids.clamp_max(self.vocabulary - 1), inside)
        if "pairs" in self.kinds:
            pairs = self.kinds["pairs"]
            places = pair_bucket(previous, ids, len(pairs.values))  # type: ignore[arg-type]
            evidence = evidence + pairs(places, inside & (previous < self.vocabulary))
        if "triples" in self.kinds:
            triples = self.kinds["triples"]
            places = triple_bucket(before, previous, ids, len(triples.values))  # type: ignore[arg-type]
            evidence = evidence + triples(places, inside)
        return evidence - self.margin * self.generic * inside[..., None], (known[:, -2:],)


def _weights(settings: RouterSettings) -> dict[str, float]:
    """Return by how much the evidence of each kind counts."""
    weights = {"unigrams": 1.0, "pairs": settings.pair_weight, "triples": settings.triple_weight}
    return {kind: settings.kappa * weight for kind, weight in weights.items()}


def _tables(counted: Statistics, null: Statistics | None, settings: RouterSettings) -> Tables:
    strengths = {
        "unigrams": settings.unigram_strength,
        "pairs": settings.pair_strength,
        "triples": settings.triple_strength,
    }
    tables: Tables = {}
    for kind, counts in counted.counts.items():
        generic = None if null is None else null.counts.get(kind)
        if null is None or generic is not None:
            tables |= _table(kind, counts, generic, strengths[kind], settings.least_count)
    return tables


def _table(kind: str, counts: Tensor, generic: Tensor | None, strength: float, least: float) -> Tables:
    """Return log(1 + c/m) where c > 0, and log(M / (n + M)), for one kind of counts [H]; no `generic` is uniform."""
    q = torch.ones_like(counts) if generic is None else generic + 1
    pseudo = (strength * q.double() / q.sum()).clamp_min(least)
    index, total = counts.nonzero().flatten(), pseudo.sum()
    return {
        f"{kind}.index": index.to(torch.int32),
        f"{kind}.value": _round(torch.log1p(counts[index].double() / pseudo[index])),
        f"{kind}.bias": _round(torch.log(total / (counts.sum().double() + total))),
        f"{kind}.size": torch.tensor(len(counts)),
    }


def _round(value: Tensor) -> Tensor:
    return (torch.round(value * _GRID) / _GRID).float()


def _stack(kind: str, columns: Sequence[Tables]) -> tuple[Tensor, Tensor]:
    """Return the dense table [H, C] and the biases [C] of one kind of counts."""
    size = int(columns[0][f"{kind}.size"])
    dense = torch.zeros(size, len(columns))
    for number, column in enumerate(columns):
        dense[column[f"{kind}.index"].long(), number] = column[f"{kind}.value"]
    return dense, torch.stack([column[f"{kind}.bias"] for column in columns])
