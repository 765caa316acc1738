"""Near-duplicates: texts whose sets of word trigrams have a Jaccard similarity of at least a threshold.

Candidates share a band of their MinHash signatures (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", 3.4);
whether they are near-duplicates is then decided by the true similarity of the two sets. So a wrong answer can only be a
pair that shares no band: at most one in 200 at the threshold, fewer above.

Shapes: N texts, P places of a signature, b bands.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moehub.corpus.sketches import PLACES, SEED, Hashes, Sketches, sketch
from moehub.errors import ConfigError

THRESHOLD = 0.8
_MISSED = 0.005
"""Share of pairs at the threshold that may share no band."""
_DEVIATIONS = 4
"""Candidates whose signatures put them this many standard deviations below the threshold are not compared."""
_CHUNK = 1 << 14
"""Pairs whose signatures are compared at a time."""
_NEIGHBOURS = 32
"""Texts of one band that each is compared with, where all are grouped."""


@dataclass(frozen=True)
class Match:
    """An earlier text that a text repeats."""

    number: int
    """Of the earlier text, which was kept: 0 for the first that was ever added."""
    similarity: float
    """Jaccard, of sets of word trigrams."""
    exact: bool
    """Whether the two are the same but for case and white space."""


class Seen:
    """Texts that were kept, to tell which of the next repeats one of them.

    A text is compared with those that were kept, and kept if it repeats none; so the order decides what is kept. A kept
    text takes about 4 KB.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        """Begin without texts.

        Raises:
            ConfigError: the threshold is not above 0 and at most 1.
        """
        self.threshold = threshold
        self._rows = rows_of_a_band(threshold)
        self._count = 0
        self._signatures = np.empty((0, PLACES), dtype=np.uint32)
        self._kept: dict[int, NDArray[np.uint32]] = {}
        self._exact: dict[int, int] = {}
        self._first: dict[int, int] = {}
        self._further: dict[int, list[int]] = {}
        self._late: list[tuple[int, int, Hashes]] = []

    def add(self, text: str) -> bool:
        """Keep a text if it repeats none that was kept, and return whether it was kept."""
        return self.add_all([text])[0] is None

    def add_all(self, texts: Iterable[str]) -> list[Match | None]:
        """Keep each text that repeats none before it, and return what the others repeat: quicker than one by one."""
        return self.add_sketches(sketch(texts))

    def add_sketches(self, sketches: Sketches) -> list[Match | None]:
        """Do as `add_all`, of texts that were sketched already."""
        self._catch_up()
        keys = band_keys(sketches.signatures, self._rows)
        numbers = self._numbers(sketches.signatures)
        found: list[Match | None] = [None] * len(keys)
        # What shares no band with any text needs no look-up now, and goes into the index when more texts come.
        alone = np.zeros(len(keys), dtype=bool) if self._first else ~_in_company(keys)
        for row in np.flatnonzero(~alone).tolist():
            bands = keys[row].tolist()
            found[row] = self._match(sketches, row, bands)
            if found[row] is None:
                self._kept[numbers[row]] = sketches.of(row)
                self._note(numbers[row], int(sketches.digests[row]), bands)
        for row in np.flatnonzero(alone).tolist():
            self._kept[numbers[row]] = sketches.of(row)
            self._late.append((numbers[row], int(sketches.digests[row]), keys[row]))
        return found

    def _numbers(self, signatures: NDArray[np.uint32]) -> range:
        """Remember signatures, and return the numbers of their texts."""
        numbers = range(self._count, self._count + len(signatures))
        if numbers.stop > len(self._signatures):
            larger = np.empty((max(numbers.stop, 2 * self._count), PLACES), dtype=np.uint32)
            larger[: self._count] = self._signatures[: self._count]
            self._signatures = larger
        self._signatures[numbers.start : numbers.stop] = signatures
        self._count = numbers.stop
        return numbers

    def _catch_up(self) -> None:
        for number, digest, bands in self._late:
            self._note(number, digest, bands.tolist())
        self._late = []

    def _note(self, number: int, digest: int, bands: Sequence[int]) -> None:
        self._exact.setdefault(digest, number)
        for band in bands:
            if band in self._first:
                self._further.setdefault(band, []).append(number)
            else:
                self._first[band] = number

    def _match(self, sketches: Sketches, row: int, bands: Sequence[int]) -> Match | None:
        number = self._exact.get(int(sketches.digests[row]))
        if number is not None:
            return Match(number, 1.0, exact=True)
        candidates = {self._first[band] for band in bands if band in self._first}
        candidates.update(*(self._further[band] for band in bands if band in self._further))
        for candidate in self._likely(sorted(candidates), sketches.signatures[row]):
            similarity = jaccard(sketches.of(row), self._kept[candidate])
            if similarity >= self.threshold:
                return Match(candidate, similarity, exact=False)
        return None

    def _likely(self, candidates: Sequence[int], signature: NDArray[np.uint32]) -> list[int]:
        if len(candidates) < 4:
            return list(candidates)
        some = np.array(candidates)
        alike = np.count_nonzero(self._signatures[some] == signature, axis=1) >= _least_alike(self.threshold)
        likely: list[int] = some[alike].tolist()
        return likely


def groups(texts: Iterable[str], threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Return the group of each text [N]: near-duplicates, and theirs, are in one, whatever the order.

    Raises:
        ConfigError: the threshold is not above 0 and at most 1.
    """
    sketches = sketch(texts)
    # Ascending by digest, so that who is whose neighbour in a band does not depend on the order of the texts.
    _, one, which = np.unique(sketches.digests, return_index=True, return_inverse=True)
    keys = band_keys(sketches.signatures[one], rows_of_a_band(threshold))
    leaders = list(range(len(one)))
    for first, second in _likely_pairs(keys, sketches.signatures[one], _least_alike(threshold)):
        ends = _leader(leaders, first), _leader(leaders, second)
        if ends[0] != ends[1] and jaccard(sketches.of(int(one[first])), sketches.of(int(one[second]))) >= threshold:
            leaders[max(ends)] = min(ends)
    return np.array([_leader(leaders, number) for number in range(len(one))], dtype=np.int64)[which]


def jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """Return |A ∩ B| / |A ∪ B| of two ascending sets; 1 where both are empty."""
    both = np.concatenate((one, other))
    if not len(both):
        return 1.0
    both.sort()
    shared = int(np.count_nonzero(both[1:] == both[:-1]))
    return shared / (len(both) - shared)


def rows_of_a_band(threshold: float) -> int:
    """Return how many places make a band: as many as let the share of pairs at the threshold through.

    Raises:
        ConfigError: the threshold is not above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"the threshold is {threshold:g}, expected a similarity above 0 and at most 1, as 0.8")
    fit = [rows for rows in range(2, PLACES) if (1 - threshold**rows) ** (PLACES // rows) <= _MISSED]
    return max(fit, default=1)


def band_keys(signatures: NDArray[np.uint32], rows: int) -> Hashes:
    """Return one number for each band of each signature [N, b]: equal where all `rows` places are."""
    factors = _factors(PLACES)
    bands = PLACES // rows
    keys = np.zeros((len(signatures), bands), dtype=np.uint64)
    for place in range(rows):
        keys += signatures[:, place : bands * rows : rows] * factors[place : bands * rows : rows]
    return keys


def _least_alike(threshold: float) -> float:
    """Return how many places of two signatures are equal at least, where the texts may be near-duplicates."""
    return PLACES * threshold - _DEVIATIONS * math.sqrt(PLACES * threshold * (1 - threshold))


def _in_company(keys: Hashes) -> NDArray[np.bool_]:
    """Return which texts share a band with another [N]."""
    found = np.zeros(len(keys), dtype=bool)
    for band in keys.T:
        order = np.argsort(band)
        same = band[order[1:]] == band[order[:-1]]
        found[order[1:][same]] = True
        found[order[:-1][same]] = True
    return found


def _likely_pairs(keys: Hashes, signatures: NDArray[np.uint32], least: float) -> Iterator[tuple[int, int]]:
    """Yield the pairs of texts that are neighbours in some band, and have enough equal places, each once."""
    pairs = _pairs(keys)
    for begin in range(0, len(pairs), _CHUNK):
        first, second = pairs[begin : begin + _CHUNK] >> 32, pairs[begin : begin + _CHUNK] & 0xFFFFFFFF
        alike = np.count_nonzero(signatures[first] == signatures[second], axis=1) >= least
        yield from zip(first[alike].tolist(), second[alike].tolist(), strict=True)


def _pairs(keys: Hashes) -> NDArray[np.int64]:
    """Return the pairs of texts that are neighbours in some band, each once, two numbers of 32 bits in one."""
    found = [np.empty(0, dtype=np.int64)]
    for band in keys.T:
        order = np.argsort(band, kind="stable")
        for offset in range(1, min(_NEIGHBOURS + 1, len(order))):
            same = band[order[offset:]] == band[order[:-offset]]
            if not same.any():
                break
            found.append((order[:-offset][same] << 32) | order[offset:][same])
    return np.unique(np.concatenate(found))


def _leader(leaders: list[int], number: int) -> int:
    while leaders[number] != number:
        leaders[number] = leaders[leaders[number]]
        number = leaders[number]
    return number


@functools.cache
def _factors(count: int) -> Hashes:
    """Return as many odd numbers of 64 bits."""
    return np.random.default_rng(SEED).integers(0, 1 << 64, count, dtype=np.uint64) | np.uint64(1)
