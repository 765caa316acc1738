import itertools

import pytest
import torch

from moehub.admission.sampling import drawn, expected_pairs, shares_of
from moehub.experts.statistics import Statistics, count, pair_bucket


def counted(*documents: list[int], vocabulary: int = 40, pair_bits: int = 8) -> Statistics:
    return count(map(torch.tensor, documents), tokenizer="t", vocabulary=vocabulary, pair_bits=pair_bits)


def test_tokens_follow_each_other_as_counted() -> None:
    """Text in which each token has one successor is drawn as it was."""
    cycle = [3, 17, 5, 29, 8, 11]
    ids = drawn(counted(cycle * 50, pair_bits=16), rows=4, length=60)
    assert ids.shape == (4, 60)
    follows = dict(zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    assert all(follows[a] == b for row in ids.tolist() for a, b in itertools.pairwise(row))


def test_tokens_come_as_often_as_counted() -> None:
    """Shares of tokens, and of pairs that share few buckets, are those of the text."""
    generator = torch.Generator().manual_seed(0)
    text = torch.multinomial(torch.arange(1.0, 11.0), 20_000, replacement=True, generator=generator)
    statistics = count([text], tokenizer="t", vocabulary=12, pair_bits=16)
    again = count(list(drawn(statistics, rows=40, length=500)), tokenizer="t", vocabulary=12, pair_bits=16)
    assert float((shares_of(again.unigrams) - shares_of(statistics.unigrams)).abs().max()) < 0.02
    assert float((shares_of(again.pairs) - shares_of(statistics.pairs)).abs().max()) < 0.01


def test_the_same_counts_and_seed_give_the_same_text() -> None:
    """A verdict does not depend on chance; another seed is another text."""
    statistics = counted([1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 6, 8, 1, 3])
    first = drawn(statistics, rows=3, length=20, seed=1)
    assert torch.equal(first, drawn(statistics, rows=3, length=20, seed=1))
    assert not torch.equal(first, drawn(statistics, rows=3, length=20, seed=2))


def test_tokens_without_pairs_are_followed_by_any() -> None:
    """Where pairs were all suppressed, tokens come independently."""
    statistics = counted([7] * 5 + [9] * 5)
    bare = Statistics("t", statistics.unigrams, torch.zeros_like(statistics.pairs))
    ids = drawn(bare, rows=2, length=200)
    assert set(ids.flatten().tolist()) == {7, 9}
    assert 100 < int((ids == 7).sum()) < 300


@pytest.mark.parametrize(("vocabulary", "pair_bits"), [(40, 4), (40, 8), (9, 12)])
def test_expected_pairs_are_products_of_shares(vocabulary: int, pair_bits: int) -> None:
    """Pairs that share a bucket add up, also where there are fewer buckets than tokens."""
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(vocabulary, (300,), generator=generator)
    statistics = count([text], tokenizer="t", vocabulary=vocabulary, pair_bits=pair_bits)
    shares, expected = shares_of(statistics.unigrams), torch.zeros(1 << pair_bits, dtype=torch.float64)
    every = torch.arange(vocabulary)
    for first in every:
        expected.index_add_(0, pair_bucket(first, every, 1 << pair_bits), shares[first] * shares)
    assert torch.allclose(expected_pairs(statistics), expected, atol=1e-12)
