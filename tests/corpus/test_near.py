import numpy as np
import pytest
from numpy.typing import NDArray

from moehub.corpus import near
from moehub.corpus.near import Match, Seen, groups, jaccard, rows_of_a_band
from moehub.corpus.sketches import PLACES, sketch
from moehub.errors import ConfigError
from tests.corpus.texts import changed, text


def similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of the sets of word trigrams, the plain way."""
    first, second = (
        {tuple(words[at : at + 3]) for at in range(len(words) - 2)} for words in (one.split(), other.split())
    )
    return len(first & second) / len(first | second)


def test_a_near_duplicate_is_not_kept() -> None:
    """What is alike enough repeats the first, what is not is kept."""
    one = text(1)
    close, far = changed(one, 2), changed(one, 12)
    seen = Seen()
    assert [seen.add(each) for each in (one, close, far, text(2))] == [True, False, True, True]


def test_a_match_says_what_is_repeated() -> None:
    """The number of the first, and the true similarity."""
    one, close = text(1), changed(text(1), 2)
    found = Seen().add_all([text(5), one, close, one.upper()])
    assert found == [None, None, Match(1, similarity(one, close), exact=False), Match(1, 1.0, exact=True)]


def test_all_at_once_and_one_by_one_are_the_same() -> None:
    """In one call, in several, and text by text."""
    texts = [changed(text(number % 40), number % 7, seed=number) for number in range(200)]
    together = Seen().add_all(texts)
    assert {None} < set(together)
    parts = Seen()
    assert [one for begin in range(0, 200, 33) for one in parts.add_all(texts[begin : begin + 33])] == together
    single = Seen()
    assert [single.add(one) for one in texts] == [match is None for match in together]


def test_whatever_is_dropped_is_alike_enough() -> None:
    """Candidates are decided by the true similarity, so there are no false alarms; nothing alike is overlooked."""
    texts = [changed(text(number % 25, 80), number % 11, seed=number) for number in range(250)]
    found = Seen(0.7).add_all(texts)
    kept = [number for number, match in enumerate(found) if match is None]
    for number, match in enumerate(found):
        if match is None:
            before = [similarity(texts[number], texts[other]) for other in kept if other < number]
            assert max(before, default=0) < 0.7
        else:
            assert match.number in kept
            assert similarity(texts[number], texts[match.number]) >= 0.7


def test_a_crowd_of_templates_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates far below the threshold are passed over by their signatures, and not compared."""
    compared: list[int] = []

    def counted(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
        compared.append(1)
        return jaccard(one, other)

    monkeypatch.setattr(near, "jaccard", counted)
    template = text(0, 60)
    texts = [changed(template, 14, seed=number) for number in range(120)]
    assert Seen().add_all(texts) == [None] * 120
    assert len(compared) < 120


def test_all_who_share_a_band_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the first of them alone."""
    monkeypatch.setattr(near, "band_keys", lambda rows, _: np.zeros((len(rows), 1), dtype=np.uint64))
    texts = [text(1), text(2), changed(text(2), 1), text(3), changed(text(3), 1)]
    assert [match and match.number for match in Seen().add_all(texts)] == [None, None, 1, None, 3]


def test_blank_texts_repeat_each_other() -> None:
    """And nothing else."""
    seen = Seen()
    assert [seen.add(one) for one in ("", "word", " \n", "word")] == [True, True, False, False]


@pytest.mark.parametrize("threshold", [0, -0.5, 1.5, float("nan")])
def test_a_threshold_is_a_similarity(threshold: float) -> None:
    """Another number is refused with the value."""
    with pytest.raises(ConfigError, match=f"the threshold is {threshold:g}, expected a similarity above 0"):
        Seen(threshold)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9, 0.97])
def test_bands_let_pairs_at_the_threshold_through(threshold: float) -> None:
    """All but one in 200, by the chance that no band of the signature is equal."""
    rows = rows_of_a_band(threshold)
    assert (1 - threshold**rows) ** (PLACES // rows) <= 0.005


def test_jaccard_of_sets() -> None:
    """Of ascending numbers; two empty sets are the same."""
    sets = [np.array(values, dtype=np.uint32) for values in ([1, 2, 3], [2, 3, 4], [])]
    assert jaccard(sets[0], sets[1]) == 0.5
    assert (jaccard(sets[0], sets[2]), jaccard(sets[2], sets[2])) == (0, 1)


def test_groups_hold_what_is_alike_through_others() -> None:
    """A chain is one group, though its ends are not alike; the order changes nothing."""
    first = text(1, 60)
    second, third = changed(first, 2, seed=1), changed(changed(first, 2, seed=1), 2, seed=2)
    assert similarity(first, third) < 0.8 <= min(similarity(first, second), similarity(second, third))
    texts = [first, second, third, first.upper(), text(2), text(3)]
    found = groups(texts)
    assert len(set(found[:4].tolist())) == 1
    assert len(set(found.tolist())) == 3
    order = [3, 5, 1, 0, 4, 2]
    again = groups([texts[number] for number in order])
    assert [[found[one] == found[other] for other in order] for one in order] == [
        [one == other for other in again] for one in again
    ]


def test_sketches_can_be_made_before() -> None:
    """Who needs the signatures too makes them once."""
    texts = [text(1), changed(text(1), 1), text(2)]
    assert Seen().add_sketches(sketch(texts)) == Seen().add_all(texts)
