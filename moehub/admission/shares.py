"""Where a text's tokens would go: the real gate, made for an expert beside others, decides about every token."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moehub.experts.packing import Row
from moehub.experts.statistics import Statistics
from moehub.router.gate import gate_of
from moehub.router.method import NULL
from moehub.router.settings import RouterSettings
from moehub.router.window import Window

SUBJECT = "the expert"
"""The name of the expert that is checked, which no other can have."""


@dataclass(frozen=True)
class Share:
    """What one expert gets of a text."""

    weight: float
    """Mean gate weight over all tokens."""
    chosen: float
    """Share of the tokens for which it is among those that answer."""


class Table:
    """A gate over the expert that is checked, others, and the null expert where there is one."""

    def __init__(self, subject: Statistics, others: Mapping[str, Statistics], null: Statistics | None) -> None:
        self.names = [SUBJECT, *others]
        self.has_null = null is not None
        settings = RouterSettings()
        self.gate, self.kappa = gate_of({SUBJECT: subject, **others}, null, settings), settings.kappa

    @torch.no_grad()
    def shares(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, Share]:
        """Return what each expert but the null gets of a text.

        Args:
            ids: int64 [R, T], rows that do not see each other.
            mask: bool [R, T], False for padding; None: there is none.
        """
        window = _window(ids, mask)
        filtered, _ = self.gate(window, self.gate.begin(len(ids), ids.device))
        weights = self.gate.routing(filtered).shared.dense[window.mask.flatten()]
        return {
            name: Share(float(column.mean()), float((column > 0).double().mean()))
            for name, column in zip(self.names, weights.unbind(1), strict=True)
        }

    @torch.no_grad()
    def evidence(self, ids: Tensor, mask: Tensor | None = None) -> dict[str, float]:
        """Return how probable each expert's counts, and the null's, make a text: nats per token, up to a constant."""
        window = _window(ids, mask)
        (source,) = self.gate.sources
        found, _ = source(window, source.begin(len(ids), ids.device))  # type: ignore[operator]
        means = found.double().sum((0, 1)) / window.mask.sum() / self.kappa
        found_means = dict(zip(self.names, means.tolist(), strict=False))
        # A text is of the one kind of generic text that explains it best.
        return found_means | ({NULL: float(means[len(self.names) :].max())} if self.has_null else {})


def padded(rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
    """Return rows as ids and mask, [R, T] as long as the longest."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.int64)
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)], mask[place, : len(row.ids)] = row.ids, True
    return ids, mask


def _window(ids: Tensor, mask: Tensor | None) -> Window:
    return Window(ids, torch.ones_like(ids, dtype=torch.bool) if mask is None else mask, lambda tokens: tokens)
