"""What a way to combine experts is, and the one registration of all of them.

Shapes: B batch, T tokens of a row, E experts, N learned tokens of a row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.quality.rows import Held, prompts
from benchmarks.quality.world import World
from moehub.experts.packing import IGNORED, Row, collate
from moehub.router.gate import Shared
from moehub.router.layer import Routing
from moehub.router.route import Route

_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Batch:
    """Rows of a text side by side."""

    held: Held
    numbers: tuple[int, ...]
    """Which rows of the text these are."""
    ids: Tensor
    """int64 [B, T], padded at the end."""
    mask: Tensor
    """bool [B, T]: False for padding."""
    prompt: Tensor
    """bool [B, T]: given tokens, that nobody predicts, before the first that is predicted."""
    owners: Tensor
    """int64 [B, T]: which expert each token belongs to; -1 for none."""


@dataclass(frozen=True)
class Answer:
    """What a method makes of one text: one tensor for each row."""

    nats: tuple[Tensor, ...]
    """-log p of each learned token, float64 [N]."""
    best: tuple[Tensor, ...] | None = None
    """The expert with the largest weight where that token is predicted, E for nobody, int64 [N]; None: no gate."""
    active: tuple[Tensor, ...] | None = None
    """A number for the set of experts that have weight there, int64 [N]; None: no gate for all layers."""


class Entrant(Protocol):
    """A method made ready for one world."""

    bytes: int
    """What one contributor sends besides the adapter."""
    note: str
    """The settings that were chosen on the texts for tuning."""

    def answer(self, held: Held) -> Answer:
        """Return what it makes of a text."""


@dataclass(frozen=True)
class Method:
    """One way to combine experts."""

    name: str
    needs: str
    """What it is made from: nothing, statistics, own text (each contributor alone), shared text, all text."""
    alone: bool
    """Whether an expert can be added without touching the others."""
    make: Callable[[World], Entrant]
    seeds: tuple[int, ...] | None = None
    """Where it is too dear for all: the seeds that it is measured on."""


@dataclass
class Routed:
    """Experts in the MoE's layers, mixed by weights that `gate` decides before the first layer."""

    world: World
    gate: Callable[[Batch], Tensor]
    """Weights of the experts and, last, of nobody: [B, T, E + 1]; zeros are not computed."""
    bytes: int = 0
    note: str = ""

    def answer(self, held: Held) -> Answer:
        """Return what it makes of a text."""
        return answered(held, self._logits)

    def _logits(self, batch: Batch) -> tuple[Tensor, Tensor]:
        weights = self.gate(batch)
        return self.world.forward(batch.ids, Shared(dense_route(weights.flatten(0, 1)))), weights


@dataclass
class Layered:
    """Experts in the MoE's layers, mixed by what each layer decides; `best` is counted over the layers."""

    world: World
    routing: Callable[[Batch], Routing]
    bytes: int = 0
    note: str = ""

    def answer(self, held: Held) -> Answer:
        """Return what it makes of a text."""
        return answered(held, lambda batch: (self.world.forward(batch.ids, self.routing(batch)), None))


@dataclass
class Whole:
    """A model of its own, without a gate."""

    model: Any
    bytes: int = 0
    note: str = ""

    def answer(self, held: Held) -> Answer:
        """Return what it makes of a text."""
        return answered(held, lambda batch: (self.model(input_ids=batch.ids, use_cache=False).logits, None))


def dense_route(weights: Tensor) -> Route:
    """Return the route of weights [T, E + 1] whose last column is nobody's."""
    experts = weights.shape[-1] - 1
    most = max(1, int((weights[:, :experts] > 0).sum(-1).max()))
    kept, indices = weights[:, :experts].topk(most, -1)
    return Route(indices, kept.float(), experts)


def top(weights: Tensor, k: int, *, threshold: float = 0.0) -> Tensor:
    """Return weights [..., E + 1] with all but the k largest zero, and those below the threshold, summing to one."""
    kept, indices = weights.topk(min(k, weights.shape[-1]), -1)
    kept = kept * ((kept >= threshold) | (kept >= kept.amax(-1, keepdim=True)))
    return torch.zeros_like(weights).scatter(-1, indices, kept / kept.sum(-1, keepdim=True))


@torch.no_grad()
def answered(held: Held, logits: Callable[[Batch], tuple[Tensor, Tensor | None]]) -> Answer:
    """Return the answer of what gives logits [B, T, V], and weights [B, T, E + 1] or None, for a batch."""
    nats: list[Any] = [None] * len(held.rows)
    best: list[Any] = [None] * len(held.rows)
    active: list[Any] = [None] * len(held.rows)
    for batch in batches(held):
        scores, weights = logits(batch)
        for place, number in enumerate(batch.numbers):
            row = held.rows[number]
            at = (row.labels[1:] != IGNORED).nonzero()[:, 0]
            predicted = scores[place, at].float().log_softmax(-1)
            nats[number] = -predicted.gather(-1, row.ids[at + 1, None])[:, 0].double()
            if weights is not None:
                best[number] = weights[place, at].argmax(-1)
                active[number] = _sets(weights[place, at] > 0)
    if best[0] is None:
        return Answer(tuple(nats))
    return Answer(tuple(nats), tuple(best), tuple(active))


def _sets(active: Tensor) -> Tensor:
    """Return a number for each row of booleans [N, E + 1], the same for equal rows: int64 [N]."""
    return torch.unique(active, dim=0, return_inverse=True)[1] if len(active) else active.new_zeros(0).long()


def batches(held: Held, tokens: int = _BATCH_TOKENS) -> Iterator[Batch]:
    """Yield a text's rows, those of like length together."""
    order = sorted(range(len(held.rows)), key=lambda number: len(held.rows[number].ids), reverse=True)
    while order:
        width = len(held.rows[order[0]].ids)
        some, order = order[: max(1, tokens // width)], order[max(1, tokens // width) :]
        yield batch(held, some)


def batch(held: Held, numbers: Sequence[int]) -> Batch:
    """Return some rows of a text side by side."""
    rows: list[Row] = [held.rows[number] for number in numbers]
    ids = collate(rows)["input_ids"]
    lengths = torch.tensor([len(row.ids) for row in rows])
    given = torch.tensor([prompts(row) for row in rows])
    places = torch.arange(ids.shape[1])[None]
    owners = torch.full_like(ids, -1)
    for place, number in enumerate(numbers):
        owners[place, : len(held.owners[number])] = held.owners[number]
    return Batch(held, tuple(numbers), ids, places < lengths[:, None], places < given[:, None], owners)


def registered() -> dict[str, Method]:
    """Return every method by name, in the order of the table."""
    from benchmarks.quality.methods import METHODS

    return {method.name: method for method in METHODS}
