"""The header of a safetensors file, read by ourselves: the library is not called before it was checked.

A file is 8 bytes of length (little endian), that many bytes of JSON, and the tensors' bytes without gaps.
"""

import math
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from moehub.admission.strict import Document, StrictJsonError, parse
from moehub.errors import ExpertError

MOST_BYTES = 1 << 20
"""Of a header: about 150 bytes for each of the most tensors."""
MOST_TENSORS = 4096
MOST_METADATA = 1 << 16
"""Bytes of all metadata together."""
METADATA = "__metadata__"
BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}
"""dtype → bytes of one value."""
_LENGTH = 8
_MOST_DIMENSIONS = 8
_MOST = 1 << 48
_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "I32": "<i4", "I64": "<i8"}


@dataclass(frozen=True)
class Entry:
    """One tensor, as the header describes it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    """First byte, counted from the end of the header."""
    end: int

    @property
    def size(self) -> int:
        """Bytes that its dtype and shape ask for."""
        return math.prod(self.shape) * BYTES[self.dtype]


@dataclass(frozen=True)
class Header:
    """What stands at the beginning of a safetensors file."""

    path: Path
    length: int
    """Bytes of JSON, as the first 8 bytes say; -1 where there are no 8 bytes."""
    raw: bytes | None
    """The JSON; None where its length is out of bounds or beyond the file."""
    data: int
    """Bytes behind it."""

    @cached_property
    def document(self) -> Document:
        """The parsed JSON.

        Raises:
            StrictJsonError: it is none, or could not be read.
        """
        if self.raw is None:
            raise StrictJsonError("its length is out of bounds")
        return parse(self.raw)

    @cached_property
    def values(self) -> dict[str, object]:
        """Name of a tensor, or `__metadata__` → what stands there; empty where there is no JSON object."""
        try:
            value = self.document.value
        except StrictJsonError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def metadata(self) -> object:
        """What stands under `__metadata__`; an empty mapping where nothing does."""
        return self.values.get(METADATA, {})

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The tensors whose description is well-formed."""
        found = (_entry(name, value) for name, value in self.values.items() if name != METADATA)
        return tuple(entry for entry in found if entry is not None)

    @cached_property
    def malformed(self) -> tuple[str, ...]:
        """Names whose description is not."""
        well = {entry.name for entry in self.entries}
        return tuple(name for name in self.values if name != METADATA and name not in well)

    def array(self, entry: Entry) -> "np.ndarray[Any, Any]":
        """Return a tensor's values, flat; BF16 as the 16 bits it is made of. Safe to ask for from step 5 on.

        Raises:
            ExpertError: the file is shorter than its header says.
        """
        count = math.prod(entry.shape)
        values = np.fromfile(self.path, _NUMPY[entry.dtype], count, offset=_LENGTH + self.length + entry.begin)
        if len(values) != count:
            raise ExpertError(f"{self.path.name} is shorter than its header says: pull the expert again")
        return values


def read_header(path: Path) -> Header:
    """Return a file's header, reading no more than it may have.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        first = file.read(_LENGTH)
        length = int.from_bytes(first, "little") if len(first) == _LENGTH else -1
        fits = 2 <= length <= min(MOST_BYTES, size - _LENGTH)
        return Header(path, length, file.read(length) if fits else None, size - _LENGTH - length)


def _entry(name: str, value: object) -> Entry | None:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        return None
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BYTES or not _naturals(shape) or not _naturals(offsets):
        return None
    if len(shape) > _MOST_DIMENSIONS or len(offsets) != 2 or offsets[0] > offsets[1]:
        return None
    return Entry(name, dtype, tuple(shape), *offsets)


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(one) is int and 0 <= one <= _MOST for one in value)
