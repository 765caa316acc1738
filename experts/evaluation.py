"""The loss of a model on rows: one formula for training and for measuring.

Shapes: B rows, T tokens of a row, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from moehub.experts.packing import IGNORED, Row, collate

_BATCH_TOKENS = 8192


def summed_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the sum of -log p, in nats, over all labels of a batch that are not ignored.

    Args:
        logits: [B, T, V], of any float type; or [1, N, V], of the tokens whose next one is not
            ignored, and then of some that do not count; or [B, P + T, V], behind P virtual tokens.
        labels: int64 [B, T], not shifted: the logits at one token predict the label of the next.
    """
    logits = logits[:, -labels.shape[1] :]
    following = functional.pad(labels, (0, 1), value=IGNORED)[:, 1:].reshape(-1)
    if logits.shape[:2] != labels.shape:
        following = following[following != IGNORED]
        following = functional.pad(following, (0, logits.shape[1] - len(following)), value=IGNORED)
    return functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]).float(), following, ignore_index=IGNORED, reduction="sum"
    )


@torch.no_grad()
def evaluate_loss(model: Any, rows: Sequence[Row], *, batch_tokens: int = _BATCH_TOKENS) -> tuple[float, int]:
    """Return the mean loss in nats per token over all learned tokens of `rows`, and how many those are.

    Every token weighs the same, however the rows are batched; (nan, 0) where there is none. Rows that hold
    several documents are right for models that keep them apart (`moehub.experts.packing.keeps_apart`); for
    others, a MoE among them, make the rows with `pack(..., join=False)`.
    """
    device = model.get_input_embeddings().weight.device
    was_training = model.training
    model.eval()
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    try:
        for batch in batches(rows, batch_tokens):
            inputs = {name: tensor.to(device) for name, tensor in collate(batch).items()}
            labels = inputs.pop("labels")
            total += summed_loss(model(**inputs, use_cache=False).logits, labels).double().cpu()
            tokens += int((labels != IGNORED).sum())
    finally:
        model.train(was_training)
    return float(total) / tokens if tokens else float("nan"), tokens


@torch.no_grad()
def likelihoods(model: Any, rows: Sequence[Row], *, batch_tokens: int = _BATCH_TOKENS) -> list[float]:
    """Return the mean log p of the learned tokens of each row, in nats per token, in the order of the rows."""
    device = model.get_input_embeddings().weight.device
    was_training = model.training
    model.eval()
    found: dict[int, float] = {}
    try:
        for batch in batches(rows, batch_tokens):
            inputs = {name: tensor.to(device) for name, tensor in collate(batch).items()}
            labels = inputs.pop("labels")
            logits = model(**inputs, use_cache=False).logits
            for row, one, said in zip(batch, logits, labels, strict=True):
                learned = int((said[1:] != IGNORED).sum())
                found[id(row)] = -float(summed_loss(one[None], said[None])) / max(learned, 1)
    finally:
        model.train(was_training)
    return [found[id(row)] for row in rows]


def batches(rows: Sequence[Row], batch_tokens: int) -> Iterator[list[Row]]:
    """Yield rows of like length together, at most `batch_tokens` in a batch with its padding."""
    batch: list[Row] = []
    for row in sorted(rows, key=lambda one: len(one.ids), reverse=True):
        if batch and (len(batch) + 1) * len(batch[0].ids) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
