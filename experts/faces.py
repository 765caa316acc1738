"""The faces of generic text: parts that are alike within, counted apart.

Counts of all kinds of text added up are like no text at all: a page of sums has more digits than generic text has on
average, and so seems to be an arithmetician's. As a mixture of a few parts, each with its own counts, generic text
knows sums too. The parts are those of a mixture of multinomials over tokens, fitted by expectation-maximisation
(Nigam, McCallum, Thrun and Mitchell 2000, "Text Classification from Labeled and Unlabeled Documents using EM",
section 4), with evidence tempered as tokens of one text repeat each other.

Shapes: D pieces of text, F faces, H buckets of tokens.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from moehub.experts.statistics import Statistics, count

MOST = 8
"""Faces; three times as many told no more on the texts for tuning of `benchmarks.quality`."""
_LEAST_PIECES = 16
"""Of each face, on average: less text has fewer faces."""
_PIECE = 1024
"""Tokens of a longer text that are taken together."""
_LEAST_TOKENS = 20
"""A shorter piece says nothing about its kind."""
_FITTED = 4096
"""Pieces that the mixture is fitted to."""
_BUCKETS = 8192
_ROUNDS = 25
_TEMPER = 0.1
_STRENGTH = 2000.0
"""Pseudo-counts of each face from all text together."""


def count_generic(documents: Sequence[Tensor], **how: Any) -> Statistics:
    """Return the statistics of generic text with its faces; with none where there is too little to tell any apart.

    Args:
        documents: token ids, int64 [T] each.
        how: as `moehub.experts.statistics.count` takes it.

    Raises:
        ExpertError: a token id is outside the vocabulary.
    """
    whole = count(documents, **how)
    pieces = [piece for document in documents for piece in document.split(_PIECE) if len(piece) >= _LEAST_TOKENS]
    wanted = min(MOST, len(pieces) // _LEAST_PIECES)
    if wanted < 2:
        return whole
    chosen = faces_of(pieces, wanted)
    parts = [[piece for piece, face in zip(pieces, chosen, strict=True) if face == one] for one in range(wanted)]
    return replace(whole, faces=tuple(count(part, **how) for part in parts if part))


def faces_of(pieces: Sequence[Tensor], faces: int) -> list[int]:
    """Return the face of each piece of text, 0 … F − 1; the same for the same pieces."""
    step = -(-len(pieces) // _FITTED)
    fitted = torch.stack([_bag(piece) for piece in pieces[::step]])
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(faces, (len(fitted),), generator=generator)
    belonging = 0.1 / faces + 0.9 * torch.nn.functional.one_hot(first, faces).double()
    for _ in range(_ROUNDS):
        logs, prior = _mixture(fitted, belonging)
        belonging = (_TEMPER * fitted @ logs.T + prior).softmax(-1)
    return [int((_TEMPER * _bag(piece) @ logs.T + prior).argmax()) for piece in pieces]


def _mixture(bags: Tensor, belonging: Tensor) -> tuple[Tensor, Tensor]:
    """Return log P(token | face) [F, H] and log P(face) [F] from bags [D, H] and how they belong [D, F]."""
    everywhere = (bags.sum(0) + 1) / (bags.sum() + bags.shape[1])
    counted = belonging.T @ bags
    logs = ((counted + _STRENGTH * everywhere) / (counted.sum(1, keepdim=True) + _STRENGTH)).log()
    return logs, ((belonging.sum(0) + 1) / (len(bags) + belonging.shape[1])).log()


def _bag(piece: Tensor) -> Tensor:
    """Return how often each bucket's tokens are in a piece, float64 [H]."""
    return torch.bincount(piece % _BUCKETS, minlength=_BUCKETS).double()
