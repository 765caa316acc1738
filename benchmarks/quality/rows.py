"""The bench's texts as tokens, with what is right about each token.

Shapes: T tokens of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.quality.setup import Setup
from benchmarks.quality.texts import Domain, Texts
from moehub.experts import tokens
from moehub.experts.packing import IGNORED, Row, pack

SWITCHING = "switching"
"""Texts that change their domain after every so many tokens, wherever that cuts them."""
NOBODY = -1

Split = Literal["tune", "test"]


@dataclass(frozen=True)
class Held:
    """One text of the bench, held out."""

    name: str
    rows: tuple[Row, ...]
    owners: tuple[Tensor, ...]
    """Of each row: the domain that each token is of, int64 [T]; `NOBODY` for text of no expert."""

    @property
    def tokens(self) -> int:
        """How many tokens are predicted."""
        return sum(int((row.labels != IGNORED).sum()) for row in self.rows)


def held(texts: Texts, tokenizer: Any, setup: Setup, split: Split) -> dict[str, Held]:
    """Return every text of one split: the domains in order, then those of nobody, then the one that switches."""
    names = [domain.name for domain in texts.domains]
    most = setup.tune_rows if split == "tune" else setup.test_rows
    context = setup.expert.context_length or setup.base.context
    found = {}
    for domain in (*texts.domains, *texts.unseen, texts.generic):
        rows = _rows(domain, tokenizer, context, split)[:most]
        owner = names.index(domain.name) if domain.name in names else NOBODY
        found[domain.name] = Held(domain.name, tuple(rows), tuple(torch.full_like(row.ids, owner) for row in rows))
    single = [domain for domain in texts.domains if domain.twin is None]
    found[SWITCHING] = _switching({names.index(one.name): found[one.name].rows for one in single}, setup, split)
    return found


def prompts(row: Row) -> int:
    """Return how many tokens at the beginning of a row are given, not predicted: at least the first."""
    return int((row.labels != IGNORED).nonzero()[0, 0])


def _rows(domain: Domain, tokenizer: Any, context: int, split: Split) -> list[Row]:
    """Return the first window of each example."""
    examples = getattr(domain, split)
    encoded = [
        one if len(one.ids) <= context else replace(one, ids=one.ids[:context], learned=one.learned[:context])
        for one in tokens.encode(tokenizer, examples)
    ]
    return pack(encoded, context, join=False)


def _switching(rows: dict[int, Sequence[Row]], setup: Setup, split: Split) -> Held:
    """Return texts whose stretches are of domains drawn at random, none following itself."""
    draw = Random(f"switching {split}")  # noqa: S311 (a benchmark's own drawing)
    long = {owner: [row for row in some if len(row.ids) >= setup.turn] for owner, some in rows.items()}
    pool = {owner: some for owner, some in long.items() if some}
    made, owners = [], []
    for _ in range(setup.switching):
        ids: list[Tensor] = []
        owner: list[int] = []
        for _ in range(setup.turns):
            one = draw.choice([other for other in pool if other not in owner[-1:]])
            row = draw.choice(pool[one])
            begin = draw.randrange(len(row.ids) - setup.turn + 1)
            ids.append(row.ids[begin : begin + setup.turn])
            owner.append(one)
        joined = torch.cat(ids)
        labels = joined.clone()
        labels[0] = IGNORED
        made.append(Row(joined, labels, (len(joined),)))
        owners.append(torch.tensor(owner).repeat_interleave(setup.turn))
    return Held(SWITCHING, tuple(made), tuple(owners))
