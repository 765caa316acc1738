"""What a gate knows that is made of published counts: whose text is this, token by token.

Shapes: T tokens of a row, E experts and the null.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.privacy.protection import BITS, Publish
from benchmarks.quality.rows import NOBODY, SWITCHING, Held
from moehub.experts.faces import count_generic
from moehub.router.gate import PosteriorGate, gate_of
from moehub.router.settings import RouterSettings
from moehub.router.window import Window

GENERIC = "generic"


@dataclass(frozen=True)
class Quality:
    """How a gate fares on held-out text: the share of tokens whose owner has the largest weight."""

    domains: float
    switching: float
    generic: float
    """Of generic text: the tokens at which the null has it."""
    nonzero: float
    """Counts that an expert publishes, on average."""


class Table:
    """Experts' text, generic text, and held-out rows."""

    def __init__(
        self,
        documents: Mapping[str, Sequence[Tensor]],
        generic: Sequence[Tensor],
        held: Mapping[str, Held],
        vocabulary: int,
    ) -> None:
        """Count the generic text; `documents` and `held` name the same domains, in the same order."""
        self.documents, self.held, self.vocabulary = documents, held, vocabulary
        self.null = count_generic(generic, tokenizer="bench", vocabulary=vocabulary, **BITS)

    @property
    def mean_documents(self) -> float:
        """How many documents a contributor has, on average."""
        return sum(map(len, self.documents.values())) / len(self.documents)

    def quality(self, publish: Publish) -> Quality:
        """Return what the gate is worth where every expert publishes its counts so."""
        published = {name: publish(some, self.vocabulary) for name, some in self.documents.items()}
        gate = gate_of(published, self.null, RouterSettings())
        right = {name: self._right(gate, self.held[name]) for name in (*published, SWITCHING, GENERIC)}
        sizes = [sum(int((counts > 0).sum()) for counts in one.counts.values()) for one in published.values()]
        return Quality(
            sum(right[name] for name in published) / len(published),
            right[SWITCHING],
            right[GENERIC],
            sum(sizes) / len(sizes),
        )

    @torch.no_grad()
    def _right(self, gate: PosteriorGate, held: Held) -> float:
        null, hits, tokens = len(self.documents), 0, 0
        for row, owner in zip(held.rows, held.owners, strict=True):
            window = Window(row.ids[None], torch.ones(1, len(row.ids), dtype=torch.bool), lambda ids: ids)
            best = gate(window, gate.begin(1, row.ids.device))[0][0].argmax(-1)
            hits += int((best == owner.where(owner != NOBODY, null)).sum())
            tokens += len(row.ids)
        return hits / tokens
