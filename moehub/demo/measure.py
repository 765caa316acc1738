"""Every model of the demo on every text that was kept aside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from moehub import evaluation
from moehub.base import Base
from moehub.console import progress
from moehub.evaluation import Score, TracedToken
from moehub.experts.examples import Text
from moehub.experts.packing import Row
from moehub.models import Opened, open_model

Texts = Mapping[str, Sequence[str]]
"""Name of a text → its documents."""


@dataclass(frozen=True)
class Bench:
    """The held-out texts, cut into rows once for all models of one base."""

    base: Base
    rows: dict[str, list[Row]]

    def scores(self, models: Mapping[str, Path]) -> dict[str, dict[str, Score]]:
        """Return the score of each model on each text: model → text → score."""
        scores: dict[str, dict[str, Score]] = {}
        with progress("measuring", len(models) * len(self.rows)) as advance:
            for name, folder in models.items():
                opened = self.open(folder)
                scores[name] = {}
                for text, rows in self.rows.items():
                    scores[name][text] = evaluation.evaluate(opened, rows)
                    advance(1, f"{name} on {text}")
        return scores

    def only(self, names: Sequence[str]) -> "Bench":
        """Return a bench of some of the texts."""
        return Bench(self.base, {name: self.rows[name] for name in names})

    def trace(self, moe: Path, text: str) -> list[TracedToken]:
        """Return each token of `text` with the expert that it went to; the gate has no context to run out of."""
        opened = self.open(moe)
        return evaluation.traced(opened, torch.tensor(opened.tokenizer(text)["input_ids"]))

    def open(self, folder: Path) -> Opened:
        """Return the model in `folder` on this base."""
        return open_model(str(folder), base=self.base.location)


def bench(base: Base, texts: Texts) -> Bench:
    """Return the texts as rows of the base's tokens."""
    opened = open_model(str(base.folder))
    rows = {
        name: evaluation.rows_of([Text(document) for document in documents], opened)
        for name, documents in texts.items()
    }
    return Bench(base, rows)
