"""Write a model's weights tensor by tensor, in memory of a few megabytes, as files that transformers reads.

The header of a safetensors file says where every tensor will lie, so it can be written before any is computed; then
each is made, a band of rows at a time, and written at once.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from moehub import files
from moehub.console import Advance, progress
from moehub.errors import MergeError
from moehub.merge.exporting.fold import Update, Workbench
from moehub.merge.exporting.mapped import DTYPES, INDEX, NAMES, WEIGHTS, Mapped

LARGEST_SHARD = 5_000_000_000
"""Bytes of a file, at most, as `save_pretrained` cuts them; a tensor is never cut."""
_PIECE = 1 << 22


@dataclass(frozen=True)
class Item:
    """One tensor of the model that is written."""

    name: str
    source: str | None = None
    """The base's tensor that it is made of."""
    change: Update | None = None
    """What is added to that."""
    value: Tensor | None = None
    """The tensor itself, where it is made of nothing of the base's."""


@dataclass(frozen=True)
class Placed:
    """An item as it will lie in a file."""

    item: Item
    dtype: str
    """As safetensors calls it."""
    shape: tuple[int, ...]
    size: int
    """Bytes."""


def place(items: Sequence[Item], base: Mapped, dtype: torch.dtype | None = None) -> list[Placed]:
    """Return each item with its type, shape and size; `dtype` is that of all weights, None: as the base's are.

    Raises:
        MergeError: a change does not fit its tensor.
    """
    return [_place(item, base, dtype) for item in items]


def write_weights(placed: Sequence[Placed], base: Mapped, folder: Path, *, largest: int = LARGEST_SHARD) -> None:
    """Write the tensors to `folder`, as one file or as several with an index.

    Args:
        placed: what to write; those of one source beside each other, so that it is read once.
        base: where the sources lie.
        folder: where to.
        largest: bytes of a file, at most.
    """
    shards = _cut(placed, largest)
    total = sum(one.size for one in placed)
    with progress("writing the weights", total, in_bytes=True) as advance:
        for name, shard in shards.items():
            with (folder / name).open("wb", buffering=0) as file:
                _write(file, _header(shard))
                _write_tensors(file, shard, base, advance)
    if len(shards) > 1:
        weight_map = {one.item.name: name for name, shard in shards.items() for one in shard}
        files.write_text(folder / INDEX, files.to_json({"metadata": {"total_size": total}, "weight_map": weight_map}))


def _place(item: Item, base: Mapped, dtype: torch.dtype | None) -> Placed:
    if item.value is not None:
        wanted = dtype or item.value.dtype
        return Placed(item, NAMES[wanted], tuple(item.value.shape), item.value.numel() * wanted.itemsize)
    span = base.spans[str(item.source)]
    if item.change is not None and span.shape != item.change.shape:
        raise MergeError(
            f"an adapter of shape {item.change.shape} does not fit {item.source} of the base, {span.shape}: "
            "it is not the base that these experts were trained on"
        )
    name = span.dtype if dtype is None or span.dtype not in DTYPES else NAMES[dtype]
    width = 1 if name == span.dtype else DTYPES[name].itemsize / DTYPES[span.dtype].itemsize
    return Placed(item, name, span.shape, int(span.size * width))


def _cut(placed: Sequence[Placed], largest: int) -> dict[str, list[Placed]]:
    """Return the name of each file with what it holds."""
    shards: list[list[Placed]] = [[]]
    size = 0
    for one in placed:
        if shards[-1] and size + one.size > largest:
            shards.append([])
            size = 0
        shards[-1].append(one)
        size += one.size
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{number:05d}-of-{len(shards):05d}.safetensors": shard for number, shard in enumerate(shards, 1)}


def _header(shard: Sequence[Placed]) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for one in shard:
        header[one.item.name] = {"dtype": one.dtype, "shape": one.shape, "data_offsets": [at, at + one.size]}
        at += one.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_tensors(file: BinaryIO, shard: Sequence[Placed], base: Mapped, advance: Advance) -> None:
    bench = Workbench()
    for one, following in pairwise([*shard, None]):
        assert one is not None  # noqa: S101 (only the last is nothing)
        for piece in _pieces(one, base, bench):
            _write(file, piece)
            advance(len(piece))
        source = one.item.source
        if source is not None and (following is None or following.item.source != source):
            base.release(source)


def _pieces(placed: Placed, base: Mapped, bench: Workbench) -> Iterator[memoryview]:
    """Yield a tensor's bytes in order; a piece is valid until the next is asked for."""
    item = placed.item
    if item.source is not None and item.change is None and base.spans[item.source].dtype == placed.dtype:
        raw = base.raw(item.source)
        yield from (raw[at : at + _PIECE] for at in range(0, len(raw), _PIECE))
        return
    weight = item.value if item.value is not None else base.tensor(str(item.source))
    for band in bench.bands(weight, item.change, DTYPES[placed.dtype]):
        yield memoryview(band.view(torch.uint8).numpy()).cast("B")  # type: ignore[arg-type]


def _write(file: BinaryIO, piece: memoryview | bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[file.write(rest) :]
