"""Xet's xorb: many chunks of files in one piece of bytes, and the hash that names it.

A xorb is a sequence of chunks, then perhaps a footer, which says nothing that the chunks do not:

    version (1 byte, 0) · packed size (3) · packing (1) · size (3) · packed bytes        for each chunk; little-endian
    XETBLOB…                                                                             the footer

Its name is the root of a tree of keyed BLAKE3 hashes over its chunks (Xet protocol 1.1: "Hashing", "Xorb format").
Whoever sends one is not believed: sizes are compared with their limits before anything is unpacked.
"""

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import lz4.frame
import numpy as np
from blake3 import blake3

from moehub.hubserver.refusals import RefusedError

LARGEST_XORB = (64 << 20) + (2 << 20)
"""Bytes of a xorb: 64 MiB of chunks that did not become smaller, their headers and the footer."""
LARGEST_CHUNK = 128 << 10
"""Bytes of a chunk as it is in the file."""
_MOST_CHUNKS = 1 << 14
_HEADER = 8
_FOOTER = b"XETBLOB"
_PLAIN, _LZ4, _GROUPED_LZ4 = 0, 1, 2
_CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
_NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
_FEWEST, _MOST, _MEAN = 2, 9, 4
"""Children of a node of the tree: at least, at most, on average."""


class Chunk(NamedTuple):
    """Where a chunk lies in its xorb."""

    offset: int
    """Of its packed bytes."""
    packed: int
    """How many they are."""
    packing: int
    """0: as they are; 1: LZ4; 2: LZ4 of every fourth byte, then every fourth from the second on, and so on."""
    size: int
    """Bytes of the chunk as it is in the file."""


def chunks_of(file: BinaryIO) -> list[Chunk]:
    """Return where the chunks of a xorb lie; their bytes are not looked at.

    Raises:
        RefusedError: it is no xorb, or holds more than a xorb may.
    """
    found: list[Chunk] = []
    offset = 0
    end = file.seek(0, 2)
    while offset < end:
        file.seek(offset)
        header = file.read(_HEADER)
        if header.startswith(_FOOTER):
            break
        chunk = _chunk(header, offset + _HEADER)
        offset = chunk.offset + chunk.packed
        if offset > end or len(found) == _MOST_CHUNKS:
            raise _malformed(f"chunk {len(found)} ends at byte {offset} of {end}")
        found.append(chunk)
    if not found:
        raise _malformed("it holds no chunk")
    return found


def _chunk(header: bytes, offset: int) -> Chunk:
    if len(header) < _HEADER or header[0] != 0:
        raise _malformed(f"the header of a chunk is {header.hex()}")
    packed, size = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
    if header[4] > _GROUPED_LZ4 or not 0 < size <= LARGEST_CHUNK or not 0 < packed <= 2 * LARGEST_CHUNK:
        raise _malformed(f"a chunk of {size} bytes in {packed} is packed the way {header[4]}")
    return Chunk(offset, packed, header[4], size)


def unpack(file: BinaryIO, chunks: Sequence[Chunk]) -> Iterator[bytes]:
    """Yield the bytes of chunks that stand beside each other in a xorb, one chunk at a time.

    Raises:
        RefusedError: a chunk is not what its header says.
    """
    for chunk in chunks:
        file.seek(chunk.offset)
        yield _unpacked(file.read(chunk.packed), chunk)


def _unpacked(data: bytes, chunk: Chunk) -> bytes:
    if chunk.packing != _PLAIN:
        data = _decompressed(data, chunk.size)
    if len(data) != chunk.size:
        raise _malformed(f"a chunk of {chunk.size} bytes unpacks to another number of them")
    return _ungrouped(data) if chunk.packing == _GROUPED_LZ4 else data


def _decompressed(data: bytes, size: int) -> bytes:
    """Return at most one byte more than `size`, whatever the frame says about itself."""
    decompressor = lz4.frame.LZ4FrameDecompressor()
    try:
        return bytes(decompressor.decompress(data, max_length=size + 1))
    except (RuntimeError, EOFError, ValueError) as error:
        raise _malformed(f"a chunk is no LZ4 frame ({error})") from error


def _ungrouped(data: bytes) -> bytes:
    """Put bytes back in order: the first quarter holds every fourth byte from 0 on, the next from 1 on, and so on."""
    grouped = np.frombuffer(data, np.uint8)
    plain = np.empty_like(grouped)
    start = 0
    for first in range(4):
        part = plain[first::4]
        part[:] = grouped[start : start + len(part)]
        start += len(part)
    return plain.tobytes()


def name_of(file: BinaryIO) -> str:
    """Return the name of a xorb, from the bytes of its chunks.

    Raises:
        RefusedError: it is no xorb.
    """
    chunks = chunks_of(file)
    leaves = [(chunk_hash(data), len(data)) for data in unpack(file, chunks)]
    return written(root(leaves))


def chunk_hash(data: bytes) -> bytes:
    """Return the hash of a chunk's bytes."""
    return blake3(data, key=_CHUNK_KEY).digest()


def root(nodes: Sequence[tuple[bytes, int]]) -> bytes:
    """Return the hash of a sequence of hashes with their sizes in bytes: the root of their tree."""
    while len(nodes) > 1:
        nodes = [_parent(group) for group in _families(nodes)]
    return nodes[0][0]


def _families(nodes: Sequence[tuple[bytes, int]]) -> Iterator[Sequence[tuple[bytes, int]]]:
    """Yield neighbours that share a parent: a family ends after its third child or later, where a hash says so."""
    start = 0
    while start < len(nodes):
        end = min(start + _MOST, len(nodes))
        ends = (at + 1 for at in range(start + _FEWEST, end) if nodes[at][0][24] % _MEAN == 0)
        end = next(ends, end)
        yield nodes[start:end]
        start = end


def _parent(children: Sequence[tuple[bytes, int]]) -> tuple[bytes, int]:
    text = "".join(f"{written(digest)} : {size}\n" for digest, size in children)
    return blake3(text.encode(), key=_NODE_KEY).digest(), sum(size for _, size in children)


def written(digest: bytes) -> str:
    """Return a hash as Xet writes it: four little-endian numbers, each in hex."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", digest))


def _malformed(what: str) -> RefusedError:
    return RefusedError(400, f"this is no xorb, because {what}: send the file again, or with HF_HUB_DISABLE_XET=1")
