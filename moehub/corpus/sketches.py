"""Texts as sets of hashed word n-grams, and their MinHash signatures, many texts at a time.

A word's hash is a polynomial in its bytes modulo 2^64, M odd: h(w) = Σ T[w_i] · M^i. It is computed for all words of a
batch at once from T[b_j] · M^j, j counted over the batch, by sums over words times M^(-j of the word's beginning). T is
0 for white space. An n-gram's hash is a polynomial in its words' hashes; both end in the finaliser of splitmix64
(Steele, Lea, Flood 2014). The signatures are rensa's: P[equal in one place] is the Jaccard similarity of two sets
(Broder 1997; Dahlgaard, Knudsen, Thorup 2017 for how they are computed).

Shapes: N texts, W words and B bytes of a batch, S n-grams of all texts, P places of a signature.
"""

import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from moehub.corpus.words import canonical

Hashes: TypeAlias = NDArray[np.uint64]
WORDS = 3
"""Words of an n-gram that near-duplicates are told by."""
PLACES = 128
"""P."""
SEED = 2027
"""Of the signatures. Who compares signatures has the same."""
_BATCH = 1 << 18
"""Bytes that are hashed at a time."""
_M = 0x9FB21C651E98DF25
_BACK = pow(_M, -1, 1 << 64)
_NGRAM = np.uint64(0xD6E8FEB86659FD93)
_WHITE = b"\t\n\v\f\r\x1c\x1d\x1e\x1f "


@dataclass(frozen=True)
class Sketches:
    """What is kept of N texts to compare them."""

    digests: Hashes
    """[N]: of all words in their order; equal for equal texts."""
    shingles: NDArray[np.uint32]
    """[S]: each text's n-grams, ascending and each once, text after text."""
    bounds: NDArray[np.int64]
    """[N + 1]: where in `shingles` each text's begin."""
    signatures: NDArray[np.uint32]
    """[N, P]."""

    def of(self, number: int) -> NDArray[np.uint32]:
        """Return one text's n-grams."""
        return self.shingles[self.bounds[number] : self.bounds[number + 1]]


def sketch(texts: Iterable[str]) -> Sketches:
    """Return what is compared of texts."""
    parts = [_sketch(batch) for batch in _batches(texts)] or [_sketch([])]
    counts = np.concatenate([np.diff(part.bounds) for part in parts])
    return Sketches(
        np.concatenate([part.digests for part in parts]),
        np.concatenate([part.shingles for part in parts]),
        _bounds(counts),
        np.concatenate([part.signatures for part in parts]),
    )


def ngrams(texts: Sequence[str], length: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hashes of each text's runs of `length` words, text after text, and where each text's begin [N + 1].

    A text of fewer words has none.
    """
    hashes, counts = _word_hashes([canonical(text).encode("utf-8", "surrogatepass") for text in texts])
    return _runs(hashes, counts, length)


def _batches(texts: Iterable[str]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for text in texts:
        batch.append(canonical(text).encode("utf-8", "surrogatepass"))
        size += len(batch[-1])
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _sketch(texts: Sequence[bytes]) -> Sketches:
    hashes, counts = _word_hashes(texts)
    digests = _whole(hashes, counts)
    runs, bounds = _runs(hashes, counts, WORDS)
    runs, bounds = _with_short(runs, bounds, digests, counts)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(runs, bounds.astype(np.uint64), PLACES, SEED)
    signatures = np.array(matrix.to_rows(), dtype=np.uint32).reshape(len(texts), PLACES)
    shingles, bounds = _sets(runs, bounds)
    return Sketches(digests, shingles, bounds, signatures)


def _word_hashes(texts: Sequence[bytes]) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hash of every word [W], and how many each text has [N]."""
    content = np.frombuffer(b"\n".join([*texts, b""]), dtype=np.uint8)
    found = [_hashed(content[begin:end], begin) for begin, end in itertools.pairwise(_cuts(content))]
    begins = np.concatenate([np.empty(0, dtype=np.int64), *(one for one, _ in found)])
    lasts = np.cumsum([len(text) + 1 for text in texts], dtype=np.int64)
    counts = np.diff(np.searchsorted(begins, lasts), prepend=0)
    return np.concatenate([np.empty(0, dtype=np.uint64), *(hashes for _, hashes in found)]), counts


def _cuts(content: NDArray[np.uint8]) -> list[int]:
    """Return where to cut bytes [B] between words, so that no piece is much longer than a batch."""
    cuts = [0]
    white = np.flatnonzero((_TABLE == 0)[content]) if len(content) > 2 * _BATCH else np.empty(0, dtype=np.int64)
    while len(content) - cuts[-1] > 2 * _BATCH:
        cuts.append(int(white[np.searchsorted(white, cuts[-1] + _BATCH)]))  # The last byte is white.
    return [*cuts, len(content)]


def _hashed(content: NDArray[np.uint8], offset: int) -> tuple[NDArray[np.int64], Hashes]:
    """Return where the words of bytes [B] begin, counted from `offset` before them, and their hashes [W]."""
    values = _TABLE[content]
    inside = values != 0
    begins = np.flatnonzero(inside & ~np.concatenate([[False], inside[:-1]]))
    if not len(begins):
        return begins, np.empty(0, dtype=np.uint64)
    values *= _powers(_M, len(values))
    words = np.add.reduceat(values, begins)
    return begins + offset, _mixed(words * _powers(_BACK, len(values))[begins])


def _runs(hashes: Hashes, counts: NDArray[np.int64], length: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the hashes of runs of `length` words [S], and where each text's begin [N + 1]."""
    bounds = _bounds(np.maximum(counts - length + 1, 0))
    if not bounds[-1]:
        return np.empty(0, dtype=np.uint64), bounds
    most = len(hashes) - length + 1
    runs = hashes[:most].copy()
    for offset in range(1, length):
        runs *= _NGRAM
        runs += hashes[offset : offset + most]
    within = np.ones(len(hashes), dtype=bool)
    ends = np.cumsum(counts)
    for offset in range(1, length):
        within[ends[counts >= offset] - offset] = False
    return _mixed(runs[within[:most]]), bounds


def _with_short(
    runs: Hashes, bounds: NDArray[np.int64], digests: Hashes, counts: NDArray[np.int64]
) -> tuple[Hashes, NDArray[np.int64]]:
    """Return the runs with one more for each text that is too short for any: all of its words."""
    short = np.flatnonzero((counts > 0) & (counts < WORDS))
    if not len(short):
        return runs, bounds
    sizes = np.diff(bounds)
    sizes[short] = 1
    return np.insert(runs, bounds[short], digests[short]), _bounds(sizes)


def _whole(hashes: Hashes, counts: NDArray[np.int64]) -> Hashes:
    """Return one hash of each text's words in their order [N]."""
    digests = np.zeros(len(counts), dtype=np.uint64)
    some = counts > 0
    begins = (np.cumsum(counts) - counts)[some]
    if len(begins):
        sums = np.add.reduceat(hashes * _powers(_M, len(hashes)), begins)
        digests[some] = _mixed(sums * _powers(_BACK, len(hashes))[begins])
    return digests


def _sets(runs: Hashes, bounds: NDArray[np.int64]) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Return each text's runs as 32 bits, ascending and each once, and where each text's begin [N + 1]."""
    owner = np.repeat(np.arange(len(bounds) - 1, dtype=np.uint64), np.diff(bounds))
    keys = (owner << np.uint64(32)) | (runs >> np.uint64(32))
    keys.sort()
    once = keys[np.diff(keys, prepend=~keys[:1]) != 0]
    counts = np.bincount((once >> np.uint64(32)).astype(np.int64), minlength=len(bounds) - 1)
    return once.astype(np.uint32), _bounds(counts)


def _bounds(counts: NDArray[Any]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _mixed(values: Hashes) -> Hashes:
    """Return splitmix64's finaliser of each value, in place where it can be."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _powers(of: int, count: int) -> Hashes:
    """Return of^0, of^1, … modulo 2^64."""
    return _remembered(of, max(1 << (count - 1).bit_length(), 2 * _BATCH))[:count]


@functools.lru_cache(maxsize=4)
def _remembered(of: int, count: int) -> Hashes:
    factors = np.full(count, of, dtype=np.uint64)
    factors[0] = 1
    powers: Hashes = np.multiply.accumulate(factors)
    return powers


def _table() -> Hashes:
    values = np.frombuffer(hashlib.shake_128(b"moehub: bytes of words").digest(256 * 8), dtype="<u8").astype(np.uint64)
    values[list(_WHITE)] = 0
    return values


_TABLE = _table()
"""T: 0 for what separates words, which are all characters that `str.split` separates at and that ASCII has."""
