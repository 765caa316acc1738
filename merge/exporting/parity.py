"""How much of a MoE arrived in what was exported: both on the same prompts and texts, in float32.

Shapes: B prompts, T tokens of a prompt, V vocabulary.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moehub.console import Advance, progress
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.packing import Row
from moehub.merge.exporting.loading import load_moe
from moehub.merge.exporting.planned import Twin
from moehub.merge.load import Parts
from moehub.merge.model import MoehubForCausalLM
from moehub.router.method import NULL

PROMPTS = 100
"""Prompts, at most."""
LENGTH = 64
"""Tokens of a prompt, at most."""
STEPS = 8
"""Tokens that both write after each prompt."""
_OWN_LENGTH = 32
_TOGETHER = 4


@dataclass(frozen=True)
class Perplexities:
    """Both on one text."""

    moe: float
    exported: float
    tokens: int
    """Number of tokens that were predicted."""


@dataclass(frozen=True)
class Parity:
    """What was exported, beside the MoE."""

    name: str
    forced: str | None
    """The expert that the MoE was sent to; None: its own gate decided."""
    prompts: int
    largest: float
    """Difference of two logits, at most, over all tokens of the prompts."""
    mean: float
    """The same, on average."""
    next_token: float
    """Share of the tokens of the prompts after which both think the same token the most probable."""
    continuations: float
    """Share of the prompts after which both write the same `STEPS` tokens."""
    perplexities: Mapping[str, Perplexities]
    """Name of a text → both on it."""


def compare(parts: Parts, twins: Sequence[Twin], folder: Path, texts: Mapping[str, Sequence[Row]]) -> list[Parity]:
    """Return how each exported model in `folder` compares with the MoE.

    Args:
        parts: the MoE.
        twins: what was exported.
        folder: where it is.
        texts: name → rows; the first are the prompts. Without any, the base writes its own.
    """
    moe = load_moe(parts, dtype=torch.float32)
    prompts = prompts_of(texts) or own_prompts(moe)
    found = []
    with progress("comparing", len(twins) * len(prompts)) as advance:
        for twin in twins:
            exported = twin.load(folder)
            with moe.forced(twin.forced) if twin.forced is not None else nullcontext():
                found.append(_compare(moe, exported, twin, prompts, texts, advance))
    return found


def prompts_of(texts: Mapping[str, Sequence[Row]]) -> list[Tensor]:
    """Return the first pieces of the rows, one text after another in turn: int64 [T] each."""
    turns = [[piece for row in rows[:PROMPTS] for piece in row.ids.split(LENGTH)] for rows in texts.values()]
    longest = max(map(len, turns), default=0)
    return [pieces[at] for at in range(longest) for pieces in turns if at < len(pieces)][:PROMPTS]


@torch.no_grad()
def own_prompts(moe: MoehubForCausalLM) -> list[Tensor]:
    """Return what the base writes by itself after one random token, sampled with a fixed seed: int64 [T] each."""
    vocabulary = int(moe.base.config.get_text_config().vocab_size)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (PROMPTS, 1), generator=generator)
    with moe.forced(NULL):
        for _ in range(_OWN_LENGTH - 1):
            chances = torch.softmax(_last(moe, ids).float(), -1)
            ids = torch.cat([ids, torch.multinomial(chances, 1, generator=generator)], 1)
    return list(ids)


def _compare(
    moe: MoehubForCausalLM,
    exported: Any,
    twin: Twin,
    prompts: Sequence[Tensor],
    texts: Mapping[str, Sequence[Row]],
    advance: Advance,
) -> Parity:
    largest = total = 0.0
    numbers = tokens = same = followed = 0
    for batch in _batches(prompts):
        mine, theirs = _logits(moe, batch), _logits(exported, batch)
        difference = (mine - theirs).abs()
        largest = max(largest, float(difference.max()))
        total += float(difference.sum(dtype=torch.float64))
        numbers += difference.numel()
        same += int((mine.argmax(-1) == theirs.argmax(-1)).sum())
        tokens += batch.numel()
        followed += int((_continue(moe, batch) == _continue(exported, batch)).all(1).sum())
        advance(len(batch))
    return Parity(
        name=twin.name,
        forced=twin.forced,
        prompts=len(prompts),
        largest=largest,
        mean=total / numbers,
        next_token=same / tokens,
        continuations=followed / len(prompts),
        perplexities={name: _perplexities(moe, exported, rows) for name, rows in texts.items()},
    )


def _perplexities(moe: MoehubForCausalLM, exported: Any, rows: Sequence[Row]) -> Perplexities:
    (mine, tokens), (theirs, _) = evaluate_loss(moe, rows), evaluate_loss(exported, rows)
    return Perplexities(math.exp(min(mine, 700.0)), math.exp(min(theirs, 700.0)), tokens)


def _batches(prompts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield prompts of one length together: int64 [B, T]."""
    by_length: dict[int, list[Tensor]] = {}
    for prompt in prompts:
        by_length.setdefault(len(prompt), []).append(prompt)
    for alike in by_length.values():
        for at in range(0, len(alike), _TOGETHER):
            yield torch.stack(alike[at : at + _TOGETHER])


@torch.no_grad()
def _logits(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids, use_cache=False).logits.float()


def _last(model: Any, ids: Tensor) -> Tensor:
    return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]


@torch.no_grad()
def _continue(model: Any, ids: Tensor) -> Tensor:
    """Return the most probable tokens one after another: int64 [B, STEPS]."""
    begin = ids.shape[1]
    for _ in range(STEPS):
        ids = torch.cat([ids, _last(model, ids).argmax(-1, keepdim=True)], 1)
    return ids[:, begin:]
