"""A base's tensors where they lie: the files are mapped, and what was used is given back to the system.

Nothing is read before it is used, so a base of any size costs no more memory than what is looked at.
"""

import contextlib
import json
import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moehub.errors import BaseModelError

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What safetensors calls the types that weights are computed in."""
NAMES = {dtype: name for name, dtype in DTYPES.items()}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Span:
    """Where one tensor lies."""

    shard: Path
    dtype: str
    """As safetensors calls it."""
    shape: tuple[int, ...]
    begin: int
    end: int
    """Bytes of the file."""

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.begin


class Mapped:
    """The tensors of a folder by name."""

    def __init__(self, folder: Path) -> None:
        """Read the headers; no weight is read.

        Raises:
            BaseModelError: there are no safetensors weights, or a file is damaged.
        """
        self._maps: dict[Path, mmap.mmap] = {}
        self.spans: dict[str, Span] = {}
        for shard in _shards(folder):
            self.spans |= _spans(shard)

    def __contains__(self, name: str) -> bool:
        return name in self.spans

    def dtype(self, name: str) -> torch.dtype:
        """Return a tensor's type.

        Raises:
            BaseModelError: it is none that LoRA adapters can be added to, as in a quantised base.
        """
        span = self.spans[name]
        if span.dtype not in DTYPES:
            raise BaseModelError(
                f"{name} in {span.shard} is stored as {span.dtype}, expected {', '.join(DTYPES)}: "
                "export with the base that is not quantised, named with --base"
            )
        return DTYPES[span.dtype]

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes as they lie in the file."""
        span = self.spans[name]
        return memoryview(self._map(span.shard))[span.begin : span.end]

    def tensor(self, name: str) -> Tensor:
        """Return a tensor over the mapped bytes: valid until `release`, and not to be written to.

        Raises:
            BaseModelError: its type is none that LoRA adapters can be added to, as in a quantised base.
        """
        span, dtype = self.spans[name], self.dtype(name)
        aligned = span.begin % dtype.itemsize == 0
        buffer = self.raw(name) if aligned else bytearray(self.raw(name))
        return torch.frombuffer(buffer, dtype=dtype).view(span.shape)

    def release(self, name: str) -> None:
        """Give the memory of a tensor's pages back; they are read again if they are needed again."""
        span = self.spans[name]
        if span.shard in self._maps and hasattr(mmap, "MADV_DONTNEED"):
            begin = span.begin - span.begin % mmap.PAGESIZE
            self._maps[span.shard].madvise(mmap.MADV_DONTNEED, begin, span.end - begin)

    def close(self) -> None:
        """Forget the mappings; they end with the last tensor that looks at them."""
        for mapped in self._maps.values():
            with contextlib.suppress(BufferError):
                mapped.close()
        self._maps.clear()

    def _map(self, shard: Path) -> mmap.mmap:
        if shard not in self._maps:
            with shard.open("rb") as file:
                # A private copy is never written to; it spares torch's warning about memory that is read-only.
                self._maps[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        return self._maps[shard]


@contextlib.contextmanager
def mapped(folder: Path) -> Iterator[Mapped]:
    """Yield the tensors of a folder.

    Raises:
        BaseModelError: there are no safetensors weights, or a file is damaged.
    """
    tensors = Mapped(folder)
    try:
        yield tensors
    finally:
        tensors.close()


def _shards(folder: Path) -> list[Path]:
    """Return the files that transformers would read: a repo may hold the same weights in other forms beside them."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        try:
            named = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BaseModelError(f"{folder / INDEX} is damaged ({error}): download the base again") from error
        found = [folder / Path(name).name for name in sorted(named)]
    else:
        found = sorted(folder.glob("*.safetensors"))
    missing = [shard.name for shard in found if not shard.is_file()]
    if missing or not found:
        raise BaseModelError(
            f"{folder} lacks {missing[0] if missing else WEIGHTS}: download the base again, or save it as safetensors"
        )
    return found


def _spans(shard: Path) -> dict[str, Span]:
    size = shard.stat().st_size
    try:
        with shard.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(min(length, size)))
        found = {
            name: Span(shard, entry["dtype"], tuple(entry["shape"]), *(8 + length + at for at in entry["data_offsets"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{shard} is no safetensors file ({error}): download the base again") from error
    if any(span.end > size for span in found.values()):
        raise BaseModelError(f"{shard} is truncated: download the base again")
    return found
