"""A safetensors file where it lies: its tensors are mapped, and read from the disk when somebody looks at them."""

import contextlib
import ctypes
import json
import math
import mmap
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

_POPULATE_READ = 22
"""Linux's MADV_POPULATE_READ (5.14): one call instead of a page fault for every few pages."""
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


class Span(NamedTuple):
    """Where one tensor lies."""

    dtype: str
    """As safetensors writes it: `F32`, `BF16`, …"""
    shape: tuple[int, ...]
    begin: int
    """In bytes from the beginning of the file."""
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.begin


def spans(path: Path) -> dict[str, Span]:
    """Return where each tensor of a safetensors file lies.

    Raises:
        ValueError: it is no safetensors file, or a tensor lies outside.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = path.stat().st_size
        if length > size:
            raise ValueError(f"its header of {length} bytes is longer than the file")
        header = json.loads(file.read(length))
    try:
        found = {name: _span(entry, 8 + length) for name, entry in header.items() if name != "__metadata__"}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its header is none of safetensors ({error})") from error
    for name, span in found.items():
        if not 8 + length <= span.begin <= span.end <= size:
            raise ValueError(f"the tensor {name!r} lies outside: the file is truncated")
        if span.dtype in _DTYPES and span.size != _SIZES[span.dtype] * math.prod(span.shape):
            raise ValueError(f"the tensor {name!r} has another size than its shape {span.shape} says")
    return found


def _span(entry: Mapping[str, Any], begin: int) -> Span:
    sizes, (first, last) = entry["shape"], entry["data_offsets"]
    for size in sizes:
        if type(size) is not int or size < 0:
            raise TypeError(f"a shape of {sizes!r:.80}")
    return Span(str(entry["dtype"]), tuple(sizes), begin + first, begin + last)


class TensorFile:
    """A safetensors file in this process's memory map; writing to its tensors changes nothing on the disk."""

    def __init__(self, path: Path) -> None:
        """Map the file.

        Raises:
            ValueError: it is no safetensors file, or it is truncated.
            OSError: it cannot be read.
        """
        self.path = path
        self.spans: Mapping[str, Span] = spans(path)
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)

    def __len__(self) -> int:
        """Return the file's size in bytes."""
        return len(self._map)

    @cached_property
    def address(self) -> int:
        """Where in this process's memory the file begins."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def tensor(self, name: str) -> "torch.Tensor":
        """Return a tensor that lies in the map.

        Raises:
            KeyError: there is none of that name.
            ValueError: it is of a type that adapters do not have.
        """
        import torch

        span = self.spans[name]
        if span.dtype not in _DTYPES:
            raise ValueError(f"the tensor {name!r} is of type {span.dtype}, expected {', '.join(_DTYPES)}")
        dtype: torch.dtype = getattr(torch, _DTYPES[span.dtype])
        count = math.prod(span.shape)
        if not count:
            return torch.empty(span.shape, dtype=dtype)
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=span.begin).view(span.shape)

    def raw(self, name: str) -> memoryview:
        """Return a tensor's bytes."""
        span = self.spans[name]
        return memoryview(self._map)[span.begin : span.end]

    def bring(self) -> None:
        """Read the whole file into memory now, where the system can be asked to."""
        for advice in (_POPULATE_READ, getattr(mmap, "MADV_WILLNEED", 3)):
            with contextlib.suppress(OSError):
                self._map.madvise(advice)
                return

    def release(self, name: str | None = None) -> None:
        """Give memory back, that of one tensor or all; what is looked at again is read from the disk again.

        What was written to the map is lost.
        """
        begin, end = (0, len(self)) if name is None else (self.spans[name].begin, self.spans[name].end)
        begin -= begin % mmap.PAGESIZE
        with contextlib.suppress(OSError, AttributeError):
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)
