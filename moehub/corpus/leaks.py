"""Evaluation items that stand in training text: runs of words that both have.

As in Brown et al. 2020 ("Language Models are Few-Shot Learners", appendix C) texts are compared as 13-grams of words
without punctuation, and a 13-gram that more than ten texts hold is a form of words, which gives no item away. An item
that is shorter is looked for as a whole, and one of fewer than four words has to be the whole text.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from moehub.corpus.items import Item
from moehub.corpus.sketches import Hashes, ngrams
from moehub.corpus.words import bare, fingerprint
from moehub.errors import ConfigError

LENGTH = 13
_LEAST = 4
"""Items of fewer words are found everywhere."""
_FORM = 10
"""More texts than this hold a run that is a form of words."""
_BATCH = 512
"""Texts that are looked through at a time."""


@dataclass(frozen=True)
class Leaks:
    """Evaluation items, to be looked for in text."""

    origins: Sequence[str]
    """Where each item stands."""
    runs: Mapping[int, tuple[Hashes, NDArray[np.int64]]]
    """Words of a run → the hashes of runs that items have, ascending, and the item that each is of."""
    whole: Mapping[str, int]
    """Fingerprint of a very short item → its number."""
    length: int
    """Words of a run that stands for part of an item."""

    def find(self, texts: Sequence[str]) -> list[str | None]:
        """Return for each text where the first item stands that it holds."""
        none = len(self.origins)
        stripped = [bare(text) for text in texts]
        first = np.array([self.whole.get(fingerprint(text), none) for text in stripped], dtype=np.int64)
        for length, (known, owners) in self.runs.items():
            holders, runs = _hits(stripped, known, length)
            if length == self.length:
                few = np.bincount(runs, minlength=len(known))[runs] <= _FORM
                holders, runs = holders[few], runs[few]
            np.minimum.at(first, holders, owners[runs])
        return [None if number == none else self.origins[number] for number in first.tolist()]


def _hits(texts: Sequence[str], known: Hashes, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which text holds which known run, each pair once: two arrays of numbers."""
    pairs = [np.empty((2, 0), dtype=np.int64)]
    for begin in range(0, len(texts), _BATCH):
        hashes, bounds = ngrams(texts[begin : begin + _BATCH], length)
        at = np.minimum(np.searchsorted(known, hashes), len(known) - 1)
        hits = np.flatnonzero(known[at] == hashes)
        holders = begin + np.searchsorted(bounds, hits, side="right") - 1
        pairs.append(np.unique(np.stack([holders, at[hits]]), axis=1))
    holders, runs = np.concatenate(pairs, axis=1)
    return holders, runs


def leaks_of(items: Sequence[Item], length: int = LENGTH) -> Leaks:
    """Return evaluation items, ready to be looked for.

    Raises:
        ConfigError: runs are to be shorter than the shortest item that is looked for.
    """
    if length < _LEAST:
        raise ConfigError(f"runs of {length} words are found everywhere, expected at least {_LEAST}")
    texts = [bare(item.text) for item in items]
    by_length: dict[int, list[int]] = defaultdict(list)
    whole: dict[str, int] = {}
    for number, text in enumerate(texts):
        words = len(text.split())
        if words >= _LEAST:
            by_length[min(words, length)].append(number)
        else:
            whole.setdefault(fingerprint(text), number)
    runs = {words: _runs([texts[number] for number in some], some, words) for words, some in by_length.items()}
    return Leaks([item.record.origin for item in items], runs, whole, length)


def _runs(texts: Sequence[str], numbers: Sequence[int], length: int) -> tuple[Hashes, NDArray[np.int64]]:
    hashes, bounds = ngrams(texts, length)
    owners = np.repeat(np.array(numbers, dtype=np.int64), np.diff(bounds))
    known, first = np.unique(hashes, return_index=True)
    return known, owners[first]
