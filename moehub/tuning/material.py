"""The text that a gate is tuned on, made ready, and how many steps it makes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from moehub import base as bases
from moehub.errors import DataError
from moehub.experts import material
from moehub.experts.examples import Example
from moehub.experts.packing import IGNORED, Row
from moehub.models import Opened
from moehub.tuning.settings import TuneConfig


@dataclass(frozen=True)
class Rows:
    """What is learned from and what is measured on; one example or window a row, because a gate remembers."""

    training: list[Row]
    held_out: list[Row]
    left_out: list[str]
    """Origins of the examples that were longer than the context, skipped or cut."""

    def steps(self, config: TuneConfig) -> int:
        """Return the number of optimizer steps."""
        if config.max_steps is not None:
            return config.max_steps
        return math.ceil(config.epochs * math.ceil(len(self.training) / config.batch_size))


def prepare(opened: Opened, examples: Sequence[Example], config: TuneConfig) -> Rows:
    """Return the rows of a tuning.

    Raises:
        ConfigError: `context_length` is more than the base takes.
        DataError: there is nothing to learn, or nothing to measure on.
    """
    longest = bases.context_length(opened.model.config)
    made = material.prepare(opened.tokenizer, examples, config.material(), longest=longest)
    training, held_out = made.rows(join=False)
    if not held_out:
        raise DataError(
            f"nothing could be held out of {len(examples)} example(s), and what is kept is decided by it: "
            "give more text, or set a larger holdout"
        )
    return Rows(training, held_out, made.left_out)


def learned(rows: Sequence[Row]) -> int:
    """Return how many tokens of rows are learned."""
    return sum(int((row.labels != IGNORED).sum()) for row in rows)


def batches(rows: Sequence[Row], config: TuneConfig, steps: int) -> Iterator[list[Row]]:
    """Yield the rows of each step: all of them in random order, then all again in another."""
    generator = torch.Generator().manual_seed(config.seed)
    size = min(config.batch_size, len(rows))
    order: list[int] = []
    for _ in range(steps):
        if not order:
            order = torch.randperm(len(rows), generator=generator).tolist()
        chosen, order = order[:size], order[size:]
        yield [rows[number] for number in chosen]
