"""Xet's shard: which chunks of which xorbs make a file, one record of 48 bytes after another.

    HFRepoMetaData… · version (u64, 2) · size of the footer (u64)                       the header
    hash of the file (32) · flags (u32) · number of terms (u32) · unused                for each file
        xorb (32) · flags (u32) · bytes (u32) · first chunk (u32) · end (u32)               each term, in order
        verification (32) · unused                                                          each term, if flag 31 is set
        sha256 of the file (32) · unused                                                    if flag 30 is set
    32 × ff · unused                                                                    the end of the files

What follows lists the chunks of the xorbs, which the hub knows from the xorbs (Xet protocol 1.1: "Shard format").
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.chunks import written

LARGEST_SHARD = 80 << 20
_TAG = b"HFRepoMetaData\0"
_VERSION = 2
_RECORD = 48
_END = b"\xff" * 32
_VERIFIED, _DESCRIBED = 1 << 31, 1 << 30


class Term(NamedTuple):
    """Neighbouring chunks of one xorb: a part of a file."""

    xorb: str
    size: int
    """Bytes of them in the file."""
    first: int
    """The first chunk."""
    end: int
    """The chunk after the last one."""


@dataclass(frozen=True)
class Rebuild:
    """A file of a shard, which stays where it is: its terms may be many."""

    shard: BinaryIO
    place: int
    """Where its terms begin."""
    count: int
    """How many they are."""
    sha256: str | None
    """Of the file; None: the client did not say."""

    def terms(self) -> Iterator[Term]:
        """Yield what the file is made of, in order."""
        self.shard.seek(self.place)
        for _ in range(self.count):
            xorb, _, size, first, end = struct.unpack("<32s4I", self.shard.read(_RECORD))
            yield Term(written(xorb), size, first, end)

    @property
    def size(self) -> int:
        """Bytes of the file, as the shard says."""
        return sum(term.size for term in self.terms())


def files_of(shard: BinaryIO) -> Iterator[Rebuild]:
    """Yield the files that a shard describes.

    Raises:
        RefusedError: it is no shard.
    """
    length = shard.seek(0, 2)
    header = _record(shard, 0)
    tag, version = header[: len(_TAG)], struct.unpack_from("<Q", header, 32)[0]
    if tag != _TAG or version != _VERSION:
        raise _malformed(f"it begins with {tag!r} and has version {version}")
    place = _RECORD
    while not (record := _record(shard, place)).startswith(_END):
        flags, count = struct.unpack_from("<2I", record, 32)
        begin = place + _RECORD
        place = begin + _RECORD * count * (2 if flags & _VERIFIED else 1)
        if place > length:
            raise _malformed(f"a file of it has {count} terms")
        sha256 = None
        if flags & _DESCRIBED:
            sha256 = written(_record(shard, place)[:32])
            place += _RECORD
        yield Rebuild(shard, begin, count, sha256)


def _record(shard: BinaryIO, place: int) -> bytes:
    shard.seek(place)
    record = shard.read(_RECORD)
    if len(record) < _RECORD:
        raise _malformed(f"it ends in the middle of the record at byte {place}")
    return record


def _malformed(what: str) -> RefusedError:
    return RefusedError(400, f"this is no shard, because {what}: send the file again, or with HF_HUB_DISABLE_XET=1")
