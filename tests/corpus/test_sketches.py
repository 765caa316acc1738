import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moehub.corpus import sketches
from moehub.corpus.sketches import PLACES, WORDS, ngrams, sketch
from moehub.corpus.words import canonical
from tests.corpus.texts import changed, text

MASK = (1 << 64) - 1


def mixed(value: int) -> int:
    value ^= value >> 30
    value = value * 0xBF58476D1CE4E5B9 & MASK
    value ^= value >> 27
    value = value * 0x94D049BB133111EB & MASK
    return value ^ (value >> 31)


def plain(words: list[str], length: int) -> list[int]:
    """Return the hashes of runs of words, one after another: the plain twin of `ngrams`."""
    table = sketches._TABLE.tolist()
    hashes = []
    for word in words:
        value = sum(table[byte] * pow(sketches._M, place, 1 << 64) for place, byte in enumerate(word.encode()))
        hashes.append(mixed(value & MASK))
    runs = []
    for begin in range(len(words) - length + 1):
        value = 0
        for one in hashes[begin : begin + length]:
            value = (value * int(sketches._NGRAM) + one) & MASK
        runs.append(mixed(value))
    return runs


@given(st.lists(st.text(alphabet="ab ü\n日.\x00", max_size=30), max_size=6), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_all_texts_at_once_are_as_each_by_itself(texts: list[str], length: int) -> None:
    """The quick way and the plain one give the same hashes, at the ends of texts too."""
    hashes, bounds = ngrams(texts, length)
    found = [hashes[begin:end].tolist() for begin, end in itertools.pairwise(bounds.tolist())]
    assert found == [plain(canonical(text).split(), length) for text in texts]


def test_a_text_is_sketched_the_same_whatever_stands_around_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another batch, and beside other texts."""
    texts = [text(number, 3 + 7 * number) for number in range(12)]
    texts += ["long" * 200 + " and short", "\n" * 300, text(1) + " " + "long" * 200]
    together = sketch(texts)
    monkeypatch.setattr(sketches, "_BATCH", 100)
    apart = sketch(texts)
    for number, one in enumerate(texts):
        alone = sketch([one])
        for other in (together, apart):
            assert other.digests[number] == alone.digests[0]
            assert other.of(number).tolist() == alone.of(0).tolist()
            assert other.signatures[number].tolist() == alone.signatures[0].tolist()


def test_shingles_are_the_trigrams_each_once() -> None:
    """Ascending, in their upper 32 bits."""
    words = list("abcabcad")
    expected = sorted({run >> 32 for run in plain(words, WORDS)})
    assert sketch([" ".join(words)]).of(0).tolist() == expected


@pytest.mark.parametrize("short", ["one", "one two"])
def test_a_text_too_short_for_a_trigram_is_one_shingle(short: str) -> None:
    """So short texts are told apart, and equal ones are equal."""
    same, other = sketch([short, short.upper()]), sketch([short + "s"])
    assert same.of(0).tolist() == same.of(1).tolist() != other.of(0).tolist()
    assert len(same.of(0)) == 1


def test_texts_without_words_have_nothing() -> None:
    """And no texts are no failure."""
    assert sketch([" ", ""]).bounds.tolist() == [0, 0, 0]
    assert sketch([]).signatures.shape == (0, PLACES)


def test_equal_places_estimate_the_similarity() -> None:
    """Within four standard deviations."""
    one = text(1, 400)
    for changes in (5, 20, 60):
        found = sketch([one, changed(one, changes)])
        first, second = (set(found.of(number).tolist()) for number in (0, 1))
        true = len(first & second) / len(first | second)
        estimate = float((found.signatures[0] == found.signatures[1]).mean())
        assert abs(estimate - true) < 4 * np.sqrt(true * (1 - true) / PLACES)
