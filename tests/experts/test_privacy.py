import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moehub.experts import noise, privacy, statistics
from moehub.experts.statistics import Statistics

KINDS = ("unigrams", "pairs", "triples")
VOCABULARY = 12
documents_of_few_tokens = st.lists(st.lists(st.integers(0, 3), max_size=30), min_size=1, max_size=6)


def clipped(documents: list[list[int]], clip: int) -> Statistics:
    """Return clipped counts without noise."""
    tensors = [torch.tensor(ids, dtype=torch.int64) for ids in documents]
    return statistics.count(tensors, tokenizer="t", vocabulary=VOCABULARY, pair_bits=5, triple_bits=6, clip=clip)


def private(documents: list[Tensor], *, epsilon: float, clip: int = 64) -> Statistics:
    """Return counts with noise."""
    sizes = {"vocabulary": VOCABULARY, "pair_bits": 9, "triple_bits": 10}
    return privacy.count(documents, tokenizer="t", **sizes, epsilon=epsilon, delta=1e-6, clip=clip)


@settings(deadline=None)
@given(documents_of_few_tokens, st.integers(0, 5), st.integers(1, 40))
def test_one_document_changes_clipped_counts_by_no_more_than_the_bound(
    documents: list[list[int]], gone: int, clip: int
) -> None:
    """What the noise has to hide: without any one document, each kind of counts is at most √clip away."""
    gone %= len(documents)
    whole, without = clipped(documents, clip), clipped([*documents[:gone], *documents[gone + 1 :]], clip)
    for kind in KINDS:
        change = whole.counts[kind] - without.counts[kind]
        assert int((change**2).sum()) <= clip
        assert int(change.min()) >= 0


@given(documents_of_few_tokens, st.integers(1, 40))
@settings(deadline=None)
def test_the_longest_beginning_that_fits_is_counted(documents: list[list[int]], clip: int) -> None:
    """Token after token until the squares of the document's own counts would be too much: a plain twin."""
    expected = torch.zeros(VOCABULARY, dtype=torch.int64)
    for ids in documents:
        own = torch.zeros(VOCABULARY, dtype=torch.int64)
        for token in ids:
            more = own.clone()
            more[token] += 1
            if int((more**2).sum()) > clip:
                break
            own = more
        expected += own
    assert clipped(documents, clip).unigrams.tolist() == expected.tolist()


def test_a_bound_that_nobody_reaches_clips_nothing() -> None:
    """Then the counts are those of all text."""
    documents = [[1, 1, 2], [], [3]]
    assert torch.equal(clipped(documents, 10_000).counts["triples"], clipped(documents, 0).counts["triples"])


def analytic(sigma: float, epsilon: float) -> float:
    """Return δ of the continuous Gaussian mechanism at sensitivity 1 (Balle and Wang 2018, theorem 8)."""
    normal = NormalDist()
    shift = 1 / (2 * sigma)
    return normal.cdf(shift - epsilon * sigma) - math.exp(epsilon) * normal.cdf(-shift - epsilon * sigma)


@pytest.mark.parametrize(
    ("epsilon", "delta", "sigma"),
    [(1.0, 1e-5, 3.7306), (1.0, 1e-6, 4.2247), (3.0, 1e-6, 1.5439), (8.0, 1e-6, 0.6529)],
)
def test_noise_is_a_little_more_than_the_analytic_gaussian_needs(epsilon: float, delta: float, sigma: float) -> None:
    """What concentrated privacy asks for lies between the best of the continuous Gaussian and a tenth more."""
    assert analytic(sigma, epsilon) == pytest.approx(delta, rel=0.01)
    mine = math.sqrt(1 / (2 * privacy.budget(epsilon, delta)))
    assert sigma <= mine <= 1.1 * sigma


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 100.0])
@pytest.mark.parametrize("delta", [1e-12, 1e-6, 0.01])
def test_budget_is_used_up(epsilon: float, delta: float) -> None:
    """The δ at ε is the one asked for, and a little more ρ would be too much."""
    rho = privacy.budget(epsilon, delta)
    assert privacy.loss(rho, epsilon) == pytest.approx(delta, rel=1e-3)
    assert privacy.loss(rho * 1.01, epsilon) > delta


@pytest.mark.parametrize("kinds", [KINDS, KINDS[:2]])
def test_all_kinds_together_spend_the_budget(kinds: tuple[str, ...]) -> None:
    """Of as many kinds as there are, no more than all of it and hardly less."""
    found = privacy.calibrated(1.0, 1e-6, 256, kinds)
    budget = privacy.budget(1.0, 1e-6)
    assert 0.999 * budget < privacy.spent(found) <= budget
    assert tuple(found.sigma) == kinds


def test_noise_is_in_every_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty ones too: as much is drawn for each kind as it has buckets, and what comes out is counts plus noise."""
    asked: list[tuple[int, float]] = []

    def drawn(size: int, sigma: float) -> Tensor:
        asked.append((size, sigma))
        return torch.full((size,), 10_000)

    monkeypatch.setattr(noise, "drawn", drawn)
    documents = [torch.tensor([1, 2, 3])]
    found = private(documents, epsilon=1.0)
    assert found.private is not None
    assert asked == [
        (12, found.private.sigma["unigrams"]),
        (512, found.private.sigma["pairs"]),
        (1024, found.private.sigma["triples"]),
    ]
    assert found.unigrams.tolist() == [10_000, 10_001, 10_001, 10_001, *[10_000] * 8]


def test_little_text_drowns_and_much_stays() -> None:
    """A few empty buckets of each kind are published; counts far above the noise are, and are about right."""
    found = private([torch.tensor([1, 2, 3, 4])] * 3000, epsilon=3.0)
    assert found.unigrams[1:5].tolist() == pytest.approx([3000] * 4, rel=0.05)
    empty = private([torch.tensor([1])], epsilon=3.0)
    assert sum(int((counts > 0).sum()) for counts in empty.counts.values()) < 80


def test_counts_that_tell_of_little_count_for_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where half of the tokens stand above the noise, all counts are a quarter of what they were."""
    monkeypatch.setattr(noise, "drawn", lambda size, _: torch.zeros(size, dtype=torch.int64))
    bar = privacy.least(private([], epsilon=1.0).private.sigma["unigrams"], VOCABULARY)  # type: ignore[union-attr]
    rare = [torch.tensor([token]) for token in range(2, 12) for _ in range(bar - 1)]
    frequent = [torch.tensor([1])] * len(rare)
    found = private([*frequent, *rare], epsilon=1.0)
    assert found.unigrams.tolist() == [0, round(len(frequent) / 4), *[0] * 10]


def test_statistics_say_what_protects_them() -> None:
    """Privacy is stated with what it takes to check it, and survives being stored."""
    found = private([torch.tensor([1, 2])], epsilon=2.0, clip=9)
    assert found.private == privacy.calibrated(2.0, 1e-6, 9, KINDS)
    assert str(found.private) == "ε = 2 at δ = 1e-06 for any one document"
    again = Statistics.from_arrays(*found.to_arrays())
    assert again.private == found.private
