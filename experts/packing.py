"""Tokens of many examples → rows of `context_length` tokens, so that no time goes into padding.

trl's best-fit packing decides who shares a row. Inside a row the positions begin anew with each example;
transformers reads from them, where no attention mask is given and nothing is cached, that the examples must
not see each other. Not every architecture can do that (convolutions and recurrences run on), so
`keeps_apart` tries it on the model itself, and examples get rows of their own where it fails.

Shapes: B rows, T tokens of a row.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.nn import functional

from moehub.experts.tokens import Tokens

IGNORED = -100
"""The label of a token that is not learned."""
_PROBE = 16
_STRIDE = 64
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_HALF_TOLERANCE = 0.05


@dataclass(frozen=True)
class Row:
    """One row of a batch: one example, or several that do not see each other."""

    ids: Tensor
    """int64 [T]."""
    labels: Tensor
    """int64 [T]: the id where it is learned, else `IGNORED`; the first of each example is never learned."""
    lengths: tuple[int, ...]
    """Tokens of each example, T in all."""


def pack(documents: Sequence[Tokens], context_length: int, *, join: bool = True) -> list[Row]:
    """Return rows of at most `context_length` tokens that hold every document.

    Documents that are longer are cut into windows that overlap by one token, so that each token but a
    document's first is predicted exactly once. With `join`, several share a row.
    """
    windows = [window for one in documents for window in _windows(one, context_length)]
    windows = [(ids, labels) for ids, labels in windows if bool((labels != IGNORED).any())]
    if not join:
        return [Row(ids, labels, (len(ids),)) for ids, labels in windows]
    return _join(windows, context_length)


def collate(rows: Sequence[Row], pad: int = 0) -> dict[str, Tensor]:
    """Return rows as one batch: `input_ids`, `labels` and `position_ids`, int64 [B, T].

    The positions of padding continue those of the example before it, which it cannot disturb.
    """
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad)
    labels = torch.full((len(rows), longest), IGNORED)
    positions = torch.empty(len(rows), longest, dtype=torch.int64)
    for index, row in enumerate(rows):
        size = len(row.ids)
        ids[index, :size], labels[index, :size] = row.ids, row.labels
        lengths = [*row.lengths[:-1], row.lengths[-1] + longest - size]
        positions[index] = torch.cat([torch.arange(length) for length in lengths])
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def flatten(rows: Sequence[Row], pad: int = 0) -> dict[str, Tensor]:
    """Return rows as one long one, for attention by text (`moehub.experts.attention`).

    Few shapes are to occur, because a CPU prepares each bfloat16 product anew when it first sees its shape: so
    there is one more text, of padding, and some places more are kept, those at the end of it.

    Returns:
        `input_ids`, `labels` and `position_ids`, int64 [1, T], where T is a multiple of 64; `cu_seq_lens_q`, int32
        [examples + 1 or 2], where each example begins, and T; `logits_to_keep`, int64 [N], the places whose next
        token is learned, then T - 1 as often as makes N a multiple of 64; all places where that are as many.
    """
    sizes = [length for row in rows for length in row.lengths]
    missing = -sum(sizes) % _STRIDE
    lengths = torch.tensor([*sizes, missing] if missing else sizes)
    labels = functional.pad(torch.cat([row.labels for row in rows]), (0, missing), value=IGNORED)
    kept = (labels[1:] != IGNORED).nonzero()[:, 0]
    kept = functional.pad(kept, (0, -len(kept) % _STRIDE), value=len(labels) - 1)
    return {
        "input_ids": functional.pad(torch.cat([row.ids for row in rows]), (0, missing), value=pad)[None],
        "labels": labels[None],
        "position_ids": torch.cat([torch.arange(length) for length in lengths.tolist()])[None],
        "cu_seq_lens_q": functional.pad(lengths.cumsum(0), (1, 0)).int(),
        "logits_to_keep": kept if len(kept) < len(labels) else torch.arange(len(labels)),
    }


@torch.no_grad()
def keeps_apart(
    model: Any,
    form: Callable[[Sequence[Row]], dict[str, Tensor]] = collate,
    *,
    within: AbstractContextManager[None] | None = None,
) -> bool:
    """Return whether two examples in one row of this model do not see each other.

    Args:
        model: what is tried.
        form: what makes a batch of the row.
        within: how the model is made to attend to it; the example alone is read without it.
    """
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(vocabulary, (2, _PROBE), generator=generator)
    together = form([Row(torch.cat([first, second]), torch.cat([first, second]), (_PROBE, _PROBE))])
    alone = collate([Row(second, second, (_PROBE,))])
    was_training = model.training
    model.eval()
    try:
        expected = _logits(model, alone)[0, : _PROBE - 1]
        with within or contextlib.nullcontext():
            packed = _logits(model, together)[0, _PROBE : 2 * _PROBE - 1]
    except TypeError:
        return False  # this architecture takes no position_ids, or lets no lengths through
    finally:
        model.train(was_training)
    tolerance = _TOLERANCE.get(next(model.parameters()).dtype, _HALF_TOLERANCE)
    return bool((packed - expected).abs().mean() <= tolerance * expected.std())


def _logits(model: Any, batch: dict[str, Tensor]) -> Tensor:
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "labels"}
    logits: Tensor = model(**inputs, use_cache=False).logits.float()
    return logits


def _windows(one: Tokens, context_length: int) -> Iterator[tuple[Tensor, Tensor]]:
    labels = one.ids.where(one.learned, IGNORED)
    for begin in range(0, max(len(one.ids) - 1, 1), context_length - 1):
        window = slice(begin, begin + context_length)
        own = labels[window].clone()
        own[:1] = IGNORED
        yield one.ids[window], own


def _join(windows: Sequence[tuple[Tensor, Tensor]], context_length: int) -> list[Row]:
    if not windows:
        return []
    import datasets
    from trl import pack_dataset

    offsets = np.cumsum([0, *(len(ids) for ids, _ in windows)], dtype=np.int64)
    columns = [torch.cat(column).numpy() for column in zip(*windows, strict=True)]
    table = pa.table(
        {
            name: pa.LargeListArray.from_arrays(offsets, pa.array(values))
            for name, values in zip(("ids", "labels"), columns, strict=True)
        }
    )
    with _quiet(datasets):
        packed = pack_dataset(
            datasets.Dataset(table), context_length, strategy="bfd", map_kwargs={"batch_size": len(windows)}
        )
    rows = packed.with_format("arrow")[:]
    ids, labels, lengths = (rows[name].combine_chunks() for name in ("ids", "labels", "seq_lengths"))
    ends = ids.offsets.to_numpy()
    flat_ids, flat_labels = (torch.tensor(column.values.to_numpy()) for column in (ids, labels))
    return [
        Row(flat_ids[begin:end], flat_labels[begin:end], tuple(int(length) for length in row_lengths))
        for begin, end, row_lengths in zip(ends[:-1], ends[1:], lengths.to_pylist(), strict=True)
    ]


@contextlib.contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """Keep the bar of `map` from a person's screen."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
