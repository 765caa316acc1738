"""Xorbs and shards, written by hand: as hf_xet writes them, or otherwise."""

import hashlib
import struct
from collections.abc import Sequence
from typing import TypeAlias

import lz4.frame
import numpy as np

from moehub.hubserver.store.chunks import chunk_hash, root, written

PLAIN, LZ4, GROUPED = 0, 1, 2
FOOTER = b"XETBLOB\x01" + bytes(200)
Term: TypeAlias = tuple[str, int, int, int]


def packed(data: bytes, packing: int) -> bytes:
    """Return the bytes of a chunk as a xorb holds them."""
    if packing == GROUPED:
        data = b"".join(data[first::4] for first in range(4))
    return data if packing == PLAIN else bytes(lz4.frame.compress(data))


def chunk(data: bytes, packing: int = PLAIN) -> bytes:
    """Return a chunk with its header."""
    return framed(packed(data, packing), packing, len(data))


def framed(inside: bytes, packing: int, size: int, version: int = 0) -> bytes:
    """Return a chunk whose header says what it is told to."""
    header = bytes([version]) + len(inside).to_bytes(3, "little") + bytes([packing]) + size.to_bytes(3, "little")
    return header + inside


def xorb(parts: Sequence[bytes], packing: int = PLAIN, footer: bytes = FOOTER) -> tuple[str, bytes]:
    """Return the name and the bytes of a xorb."""
    name = written(root([(chunk_hash(part), len(part)) for part in parts]))
    return name, b"".join(chunk(part, packing) for part in parts) + footer


def raw(name: str) -> bytes:
    """Return the 32 bytes of a hash that Xet wrote."""
    return struct.pack("<4Q", *(int(name[at : at + 16], 16) for at in range(0, 64, 16)))


def record(first: bytes, *numbers: int) -> bytes:
    return struct.pack("<32s4I", first, *numbers, *[0] * (4 - len(numbers)))


def shard(*files: tuple[str | None, Sequence[Term]], verified: bool = True) -> bytes:
    """Return a shard of files, each a sha256 and its terms: xorb, bytes, first chunk, end."""
    made = struct.pack("<32sQQ", b"HFRepoMetaData\0" + b"U" * 17, 2, 0)
    for sha256, terms in files:
        flags = (1 << 31 if verified else 0) | (1 << 30 if sha256 else 0)
        made += record(b"f" * 32, flags, len(terms))
        made += b"".join(record(raw(name), 0, size, first, end) for name, size, first, end in terms)
        made += record(b"v" * 32) * (len(terms) if verified else 0)
        made += record(raw(sha256)) if sha256 else b""
    return made + record(b"\xff" * 32) * 2


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def numbers(size: int, seed: int = 0) -> bytes:
    """Return bytes that nothing can pack."""
    return np.random.default_rng(seed).bytes(size)
