"""Training what decides, while base and experts stay as they are: rows as the experts saw them, and when to stop.

Shapes: B rows, T tokens of a batch, all rows together.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.quality.gating import Reading, blocks
from benchmarks.quality.method import Entrant
from benchmarks.quality.rows import SWITCHING, Held
from benchmarks.quality.texts import GENERIC, drawn
from benchmarks.quality.world import World
from moehub import base as bases
from moehub.console import Advance
from moehub.experts.attention import by_text, can_be_by_text
from moehub.experts.evaluation import summed_loss
from moehub.experts.examples import Example
from moehub.experts.material import prepare
from moehub.experts.packing import IGNORED, Row, collate, flatten, keeps_apart
from moehub.router.layer import Routing

TOKENS = 1024
"""Tokens, about, of one step on the text of all."""
OWN_TOKENS = 512
"""The same where a contributor trains alone."""
_TUNED_ROWS = 3
_LEAST = 1e-3
"""Nats per token that count as an improvement."""

Loss = Callable[[Sequence[Row]], Tensor]
"""Rows → what is to become small."""


@dataclass(frozen=True)
class Packed:
    """Rows on their way through a model."""

    inputs: dict[str, Tensor]
    """What the model is given; `input_ids` is int64 [B, T/B]."""
    labels: Tensor
    """int64 [B, T/B]."""
    positions: Tensor
    """int64 [T]: tokens of the same text before each."""
    real: Tensor
    """bool [T]: False for padding."""

    @property
    def learned(self) -> int:
        """How many tokens are predicted."""
        return int((self.labels != IGNORED).sum())

    def means(self, x: Tensor) -> Tensor:
        """Return the mean of each text's vectors: [T, D] to [texts, D]."""
        text = ((self.positions == 0).cumsum(0) - 1)[self.real]
        sums = x.new_zeros(int(text[-1]) + 1, x.shape[-1]).index_add_(0, text, x[self.real])
        return sums / torch.bincount(text)[:, None]


class Learner:
    """A world's MoE, through which a gate is trained."""

    def __init__(self, world: World) -> None:
        self.moe = world.stacked
        self.moe.board.routing = None
        self.places = blocks(self.moe.sparse_layers)
        embed: Any = self.moe.get_input_embeddings()
        self.embed = embed
        self.hidden = int(embed.weight.shape[1])
        base = self.moe.base
        longest = world.setup.expert.context_length or world.setup.base.context
        self._by_text = can_be_by_text(base, longest) and keeps_apart(base, flatten, within=by_text(base))

    def pack(self, rows: Sequence[Row]) -> Packed:
        """Return rows as a batch: end to end where the base can read them so, else side by side."""
        given = flatten(rows) if self._by_text else collate(rows)
        labels, positions = given.pop("labels"), given["position_ids"].flatten()
        width = given["input_ids"].shape[1]
        lengths = torch.tensor([sum(len(row.ids) for row in rows)] if self._by_text else [len(row.ids) for row in rows])
        real = (torch.arange(width)[None] < lengths[:, None]).flatten()
        inputs = given if self._by_text else {"input_ids": given["input_ids"]}
        return Packed(inputs, labels, positions, real)

    def logits(self, packed: Packed, routing: Routing | None, **options: Any) -> Tensor:
        """Return the logits of the places that count with the experts that `routing` names."""
        self.moe.board.routing = routing
        with by_text(self.moe.base) if self._by_text else nullcontext():
            logits: Tensor = self.moe.base(**{**packed.inputs, **options}, use_cache=False).logits
            return logits

    def loss(self, packed: Packed, routing: Routing) -> Tensor:
        """Return nats per predicted token."""
        return summed_loss(self.logits(packed, routing), packed.labels) / packed.learned

    @torch.no_grad()
    def inputs(self, packed: Packed) -> dict[str, Tensor]:
        """Return what each block of the base alone reads, of root mean square 1: float32 [T, D]."""
        reading = Reading(len(self.moe.names))
        self.logits(packed, reading.routing, logits_to_keep=1)
        return reading.inputs

    @torch.no_grad()
    def embeddings(self, rows: Sequence[Row], tokens: int) -> Tensor:
        """Return the mean of each text's last hidden states in the base, of length 1: [texts, D]."""
        found = []
        for some in portions(rows, tokens):
            packed = self.pack(some)
            self.moe.board.routing = None
            with by_text(self.moe.base) if self._by_text else nullcontext():
                given = {**packed.inputs, "logits_to_keep": 1}
                hidden = self.moe.base(**given, use_cache=False, output_hidden_states=True).hidden_states[-1]
            found.append(packed.means(hidden.flatten(0, 1).float()))
        return torch.nn.functional.normalize(torch.cat(found), dim=-1)

    @torch.no_grad()
    def centres(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return the mean over texts of what each block reads in them, of length 1: [D]."""
        found: dict[str, list[Tensor]] = {place: [] for place in self.places}
        for some in portions(rows, TOKENS):
            packed = self.pack(some)
            for place, x in self.inputs(packed).items():
                found[place].append(torch.nn.functional.normalize(packed.means(x), dim=-1))
        return {place: torch.nn.functional.normalize(torch.cat(x).mean(0), dim=0) for place, x in found.items()}


def rows(world: World, examples: Sequence[Example]) -> list[Row]:
    """Return the rows that a training on these examples has: one text each, documents in windows."""
    longest = bases.context_length(world.base.load_config())
    return prepare(world.tokenizer, examples, world.setup.expert, longest=longest).rows(join=False)[0]


def own(world: World, name: str) -> list[Row]:
    """Return the rows that the contributor `name` trained on; for "generic", as much of the public text."""
    if name == GENERIC:
        return rows(world, drawn(world.texts.generic.train, world.setup.expert_characters, world.seed))
    return rows(world, world.examples(name))


def pooled(world: World) -> dict[str, list[Row]]:
    """Return the rows of all contributors, and of the public text, on which the base may answer."""
    return {name: own(world, name) for name in (*world.names, GENERIC)}


def batches(pool: Mapping[str, Sequence[Row]], seed: str, tokens: int) -> Iterator[list[Row]]:
    """Yield rows of `tokens` tokens or a little more: owners take turns, and each row comes before one comes again."""
    draw = Random(seed)  # noqa: S311 (an order, no secret)
    waiting: dict[str, list[Row]] = {owner: [] for owner in pool}
    turns: list[str] = []
    while True:
        some: list[Row] = []
        while sum(len(row.ids) for row in some) < tokens:
            turns = turns or draw.sample(sorted(pool), len(pool))
            owner = turns.pop()
            waiting[owner] = waiting[owner] or draw.sample(list(pool[owner]), len(pool[owner]))
            some.append(waiting[owner].pop())
        yield some


def portions(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """Yield all rows, in order, in batches of `tokens` tokens or a little more."""
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if sum(len(one.ids) for one in some) >= tokens:
            yield some
            some = []
    if some:
        yield some


def descend(
    gate: nn.Module,
    loss: Loss,
    stream: Iterator[list[Row]],
    *,
    rate: float,
    steps: int,
    advance: Advance = lambda *_: None,
    optimizer: torch.optim.Optimizer | None = None,
) -> None:
    """Take `steps` steps of AdamW without decay on the gate's parameters."""
    optimizer = optimizer or torch.optim.AdamW(gate.parameters(), lr=rate, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(next(stream))
        value.backward()
        optimizer.step()
        advance(1, f"loss {value.item():.3f}")


@dataclass(frozen=True)
class Settled:
    """How a training ended."""

    steps: int
    loss: float
    """On the texts for tuning, nats per token."""
    settled: bool
    """Whether it had stopped improving, rather than run out of steps."""

    def __str__(self) -> str:
        ended = "no longer improving" if self.settled else "still improving"
        return f"{self.steps} steps, tune loss {self.loss:.4f}, {ended}"


def settle(
    gate: nn.Module,
    loss: Loss,
    stream: Iterator[list[Row]],
    tune: Callable[[], float],
    *,
    rate: float,
    most: int,
    every: int = 50,
    patience: int = 2,
    advance: Advance = lambda *_: None,
) -> Settled:
    """Train until the tune loss stops improving, then again at a tenth of the rate; the best state is kept.

    Args:
        gate: what is trained.
        loss: of a batch.
        stream: batches.
        tune: measures the gate as it is.
        rate: of learning.
        most: steps, at most.
        every: steps between two looks at the tune loss.
        patience: looks without improvement until it is over.
        advance: moves a bar of `most` steps.
    """
    best, state, step, waited = tune(), copy.deepcopy(gate.state_dict()), 0, 0
    for lowered in (1.0, 0.1):
        gate.load_state_dict(state)
        optimizer = torch.optim.AdamW(gate.parameters(), lr=rate * lowered, weight_decay=0.0)
        waited = 0
        while step < most and waited < patience:
            some = min(every, most - step)
            descend(gate, loss, stream, rate=rate, steps=some, advance=advance, optimizer=optimizer)
            step += some
            now = tune()
            waited = 0 if now < best - _LEAST else waited + 1
            if now < best:
                best, state = now, copy.deepcopy(gate.state_dict())
    gate.load_state_dict(state)
    return Settled(step, best, waited >= patience)


def tuning(world: World, most: int = _TUNED_ROWS) -> list[Held]:
    """Return some rows of each text that settings are chosen on: the domains' and, last, the one that switches."""
    texts = (world.tune[name] for name in (*world.names, SWITCHING))
    return [replace(held, rows=held.rows[:most], owners=held.owners[:most]) for held in texts]


def tune_loss(texts: Sequence[Held], entrant: Entrant) -> float:
    """Return nats per token on what `tuning` returned: half the mean over domains, half the text that switches."""
    *domains, switching = (float(torch.cat(entrant.answer(held).nats).mean()) for held in texts)
    return (sum(domains) / len(domains) + switching) / 2
