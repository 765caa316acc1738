"""Answers → figures: how much of the experts' gain a method keeps, how soon it finds the expert, what it harms.

    kept = 100 · (base − method) / (base − oracle),   losses in nats per token of the domain's held-out text

where the oracle sends a text to the expert it belongs to. Intervals are the middle 95 % of what comes out when
documents are drawn again, with replacement, within each domain of each seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.quality.method import Answer
from benchmarks.quality.rows import NOBODY, SWITCHING, Held
from moehub.experts.packing import IGNORED

FIRST = 16
"""Tokens that count as the beginning of a text."""
_DRAWS = 400


@dataclass(frozen=True)
class Sums:
    """One method on one text: for each document, nats and tokens, of all and of the first tokens."""

    nats: list[float]
    tokens: list[int]
    first_nats: list[float]
    first_tokens: list[int]
    right: float | None = None
    """Share of the tokens at which the owner has the largest weight."""
    run: float | None = None
    """Tokens for which one set of experts stays, on average."""
    latency: float | None = None
    """Tokens of a new stretch that went elsewhere before the first that went to its owner, on average."""

    @property
    def loss(self) -> float:
        """Nats per token."""
        return sum(self.nats) / max(1, sum(self.tokens))


def sums(held: Held, answer: Answer) -> Sums:
    """Return what a method's answer comes to on one text."""
    nats = [float(row.sum()) for row in answer.nats]
    first = [row[:FIRST] for row in answer.nats]
    owners = [_predicting(held, number) for number in range(len(held.rows))]
    owned = bool((owners[0] != NOBODY).any())
    right = run = latency = None
    if answer.best is not None:
        if owned:
            hits = torch.cat([best == owner for best, owner in zip(answer.best, owners, strict=True)])
            right = float(hits.double().mean())
        if held.name == SWITCHING:
            latency = _latency(answer.best, owners)
    if answer.active is not None:
        changes = sum(int((row[1:] != row[:-1]).sum()) + 1 for row in answer.active if len(row))
        run = sum(map(len, answer.active)) / max(1, changes)
    return Sums(
        nats,
        [len(row) for row in answer.nats],
        [float(row.sum()) for row in first],
        [len(row) for row in first],
        right,
        run,
        latency,
    )


def kept(base: Sums, method: Sums, oracle: Sums) -> float:
    """Return the gain kept, in percent."""
    return 100 * (base.loss - method.loss) / (base.loss - oracle.loss)


@dataclass(frozen=True)
class Figure:
    """A figure with its interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.1f} ({self.low:.1f}–{self.high:.1f})"


Seeds = Sequence[Mapping[str, Sums]]
"""For each seed: text → sums."""


def gain_kept(
    base: Seeds, method: Seeds, oracle: Seeds, texts: Sequence[str], *, first: bool = False, interval: bool = True
) -> Figure:
    """Return the mean over texts and seeds of the gain kept; without `interval` the figure alone."""
    return _interval(lambda draw: _mean_kept(base, method, oracle, texts, draw, first=first), interval=interval)


def together(base: Seeds, method: Seeds, oracle: Seeds, texts: Sequence[str]) -> float:
    """Return the share of all texts' gains that is kept, added up over texts and seeds, in percent."""
    mine = whole = 0.0
    for of_base, of_method, of_oracle in zip(base, method, oracle, strict=True):
        for text in texts:
            mine += of_base[text].loss - of_method[text].loss
            whole += of_base[text].loss - of_oracle[text].loss
    return 100 * mine / whole


def harm(base: Seeds, method: Seeds, texts: Sequence[str], *, interval: bool = True) -> Figure:
    """Return by how many percent the loss on texts is above the base's, the mean over texts and seeds."""

    def value(draw: np.random.Generator | None) -> float:
        found = []
        for of_base, of_method in zip(base, method, strict=True):
            for text in texts:
                chosen = _drawn(of_base[text], draw)
                found.append(100 * (_loss(of_method[text], chosen) / _loss(of_base[text], chosen) - 1))
        return float(np.mean(found))

    return _interval(value, interval=interval)


def _mean_kept(
    base: Seeds, method: Seeds, oracle: Seeds, texts: Sequence[str], draw: np.random.Generator | None, *, first: bool
) -> float:
    found = []
    for of_base, of_method, of_oracle in zip(base, method, oracle, strict=True):
        for text in texts:
            chosen = _drawn(of_base[text], draw)
            worst, mine, best = (_loss(one[text], chosen, first=first) for one in (of_base, of_method, of_oracle))
            found.append(100 * (worst - mine) / (worst - best))
    return float(np.mean(found))


def _drawn(one: Sums, draw: np.random.Generator | None) -> Any:
    count = len(one.nats)
    return np.arange(count) if draw is None else draw.integers(count, size=count)


def _loss(one: Sums, chosen: Any, *, first: bool = False) -> float:
    nats, tokens = (one.first_nats, one.first_tokens) if first else (one.nats, one.tokens)
    return float(np.asarray(nats)[chosen].sum() / np.asarray(tokens)[chosen].sum())


def _interval(value: Any, *, interval: bool) -> Figure:
    if not interval:
        return Figure(value(None), float("nan"), float("nan"))
    generator = np.random.default_rng(0)
    draws = [value(generator) for _ in range(_DRAWS)]
    return Figure(value(None), *np.percentile(draws, [2.5, 97.5]).tolist())


def _predicting(held: Held, number: int) -> Tensor:
    """Return the owner at each place that predicts a learned token."""
    at = (held.rows[number].labels[1:] != IGNORED).nonzero()[:, 0]
    return held.owners[number][at]


def _latency(best: Sequence[Tensor], owners: Sequence[Tensor]) -> float:
    waited = []
    for chosen, owner in zip(best, owners, strict=True):
        begins = [0, *(1 + (owner[1:] != owner[:-1]).nonzero()[:, 0]).tolist(), len(owner)]
        for begin, end in pairwise(begins[1:]):
            hits = (chosen[begin:end] == owner[begin:end]).nonzero()
            waited.append(int(hits[0, 0]) if len(hits) else end - begin)
    return float(np.mean(waited)) if waited else float("nan")
