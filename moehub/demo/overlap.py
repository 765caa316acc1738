"""How much of a text was seen before, word by word: keeps copies of one text out of both sides of a split."""

import re
import zlib
from collections.abc import Iterator

_WORD = re.compile(r"\w+")


class Shingles:
    """The runs of a few neighbouring words in the texts added so far, case and punctuation aside."""

    def __init__(self, *, words: int = 8) -> None:
        self._words = words
        self._seen: set[int] = set()

    def add(self, text: str) -> None:
        """Remember every run of words in `text`."""
        self._seen.update(self._runs(text))

    def share(self, text: str) -> float:
        """Return the share of the runs of words in `text` that were seen before, 0 to 1."""
        runs = list(self._runs(text))
        return sum(run in self._seen for run in runs) / max(1, len(runs))

    def _runs(self, text: str) -> Iterator[int]:
        words = [zlib.crc32(word.encode()) for word in _WORD.findall(text.lower())]
        # Plain integers hash the same in every process, unlike strings.
        return map(hash, zip(*(words[begin:] for begin in range(self._words)), strict=False))
