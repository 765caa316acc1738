"""The mean of products, against sums of full matrices in float64."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from numpy.typing import NDArray

from moehub.federation.aggregation import aggregate, product
from moehub.federation.weights import A, B, Weights, digest, initial
from tests.federation.updates import LINEARS, adapter, federation, near, products, settings, updates

FULL = min(min(shape) for shape in LINEARS.values())
"""No product of these linears is of a larger rank."""


def mean_of_products(sent: list[Weights], tokens: list[int]) -> dict[str, NDArray[np.float64]]:
    """Return Σ w B·A of every linear, the plain way."""
    every = [products(each) for each in sent]
    return {name: np.average([each[name] for each in every], axis=0, weights=tokens) for name in every[0]}


def assert_close(expected: dict[str, NDArray[np.float64]], actual: dict[str, NDArray[np.float64]]) -> None:
    for name, values in expected.items():
        assert np.abs(values - actual[name]).max() <= 1e-6 * max(1.0, np.abs(values).max()), name


@limits(max_examples=40, deadline=None)
@given(
    nodes=st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 8)), min_size=1, max_size=6),
    seed=st.integers(0, 1000),
)
def test_at_full_rank_it_is_the_exact_sum(nodes: list[tuple[int, int]], seed: int) -> None:
    """Whatever the weights, and with another rank at every node."""
    tokens = [count for count, _ in nodes]
    sent = [adapter(seed + place, rank=rank, size=0.3) for place, (_, rank) in enumerate(nodes)]
    linears = {name: shape for name, shape in LINEARS.items() if min(shape) == FULL}
    small = [{name: each for name, each in one.items() if name.startswith(tuple(linears))} for one in sent]
    start = {name: each for name, each in adapter(0, rank=FULL).items() if name.startswith(tuple(linears))}
    found = aggregate(settings("product", rank=FULL), start, updates(small, tokens), round=1)
    assert_close(mean_of_products(small, tokens), products(found.weights))
    assert found.discarded <= 1e-10


@limits(max_examples=30, deadline=None)
@given(ranks=st.lists(st.integers(1, 6), min_size=1, max_size=5), rank=st.integers(1, 6), seed=st.integers(0, 99))
def test_below_full_rank_it_is_the_best_there_is(ranks: list[int], rank: int, seed: int) -> None:
    """The largest singular values are kept, and the share of the others' squares is reported (Eckart–Young)."""
    sent = [adapter(seed + place, rank=each) for place, each in enumerate(ranks)]
    found = aggregate(settings("product", rank=rank), adapter(0, rank=rank), updates(sent), round=1)
    cut = total = 0.0
    for name, mean in mean_of_products(sent, [1] * len(sent)).items():
        u, s, vt = np.linalg.svd(mean)
        best = (u[:, :rank] * s[:rank]) @ vt[:rank]
        np.testing.assert_allclose(products(found.weights)[name], best, atol=2e-5)
        cut += float(np.square(s[rank:]).sum())
        total += float(np.square(s).sum())
    assert found.discarded == pytest.approx(cut / total, abs=1e-6)


def test_the_factors_are_balanced() -> None:
    """Neither factor holds more of the product than the other, so both learn alike."""
    chosen, start, sent = federation("product")
    found = aggregate(chosen, start, updates(sent), round=1).weights
    for linear in LINEARS:
        a, b = found[linear + A].astype(np.float64), found[linear + B].astype(np.float64)
        np.testing.assert_allclose(a @ a.T, b.T @ b, atol=1e-5)


def test_signs_are_decided() -> None:
    """An SVD may turn any pair of vectors around; the result must not depend on the library's mood."""
    chosen, start, sent = federation("product")
    found = aggregate(chosen, start, updates(sent), round=1).weights
    turned = [{name: -values for name, values in each.items()} for each in sent]
    assert digest(found) == digest(aggregate(chosen, start, updates(turned), round=1).weights)
    for linear in LINEARS:
        b = found[linear + B]
        assert (b[np.abs(b).argmax(axis=0), np.arange(b.shape[1])] > 0).all()


def test_a_smaller_rank_leaves_directions_that_can_be_learned() -> None:
    """Where all nodes are of rank 2, the rest of A stays beside zeros in B; both zero would never move again."""
    start = initial({name: values.shape for name, values in adapter(0, rank=6).items()}, seed=3)
    sent = [adapter(place, rank=2, size=0.3) for place in (1, 1, 1)]
    found = aggregate(settings("product", rank=6), start, updates(sent), round=1).weights
    assert_close(products(sent[0]), products(found))
    for linear in LINEARS:
        np.testing.assert_array_equal(start[linear + A][2:], found[linear + A][2:])
        assert not found[linear + B][:, 2:].any()
        assert np.abs(found[linear + B][:, :2]).max() > 0


def test_the_first_round_may_change_nothing() -> None:
    """B is zero at first: a round in which nobody learned gives the adapter back as it was drawn."""
    start = initial({name: values.shape for name, values in adapter(0).items()}, seed=3)
    found = aggregate(settings("product"), start, updates([start] * 3), round=1)
    assert (digest(start), 0.0) == (digest(found.weights), found.discarded)


def test_more_columns_than_a_linear_is_wide_lose_nothing() -> None:
    """A sum is never of a larger rank than its matrix: stacks are compressed to that without loss."""
    sent = [adapter(place, rank=5, size=0.2) for place in range(40)]
    found = aggregate(settings("product", rank=24), adapter(99, rank=24), updates(sent), round=1)
    assert_close(mean_of_products(sent, [1] * 40), products(found.weights))
    assert found.discarded <= 1e-10


def test_stacks_beyond_the_cap_keep_what_matters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that learn alike add little rank: of what is cut on the way hardly anything would have stayed."""
    linears = {"model.0.wide": (200, 150)}
    common = adapter(0, rank=4, linears=linears)
    sent = [near(common, 1 + place, 0.6) for place in range(60)]
    chosen, start = settings("product", rank=4), adapter(99, rank=4, linears=linears)
    exact = aggregate(chosen, start, updates(sent), round=1)
    monkeypatch.setattr(product, "_KEPT", 16)
    close = aggregate(chosen, start, updates(sent), round=1)
    error = products(close.weights)["model.0.wide"] - products(exact.weights)["model.0.wide"]
    assert np.linalg.norm(error) <= 1e-3 * np.linalg.norm(products(exact.weights)["model.0.wide"])
    assert close.discarded == pytest.approx(exact.discarded, rel=0.05)
    assert exact.discarded > 0.001, "otherwise nothing was there to lose"


def test_what_is_cut_on_the_way_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that learn different things lose energy in every compression, not only in the last one."""
    linears = {"model.0.wide": (200, 150)}
    sent = [adapter(place, rank=4, linears=linears) for place in range(30)]
    chosen, start = settings("product", rank=4), adapter(99, rank=4, linears=linears)
    exact = aggregate(chosen, start, updates(sent), round=1)
    monkeypatch.setattr(product, "_KEPT", 16)
    close = aggregate(chosen, start, updates(sent), round=1)
    assert close.discarded == pytest.approx(exact.discarded, abs=0.1)
    assert exact.discarded > 0.5


def test_memory_is_flat_in_the_number_of_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten times the nodes take the same memory, and never that of the full matrix."""
    linears = {"model.0.wide": (1500, 1500)}
    monkeypatch.setattr(product, "_KEPT", 16)
    chosen, start = settings("product", rank=4), adapter(0, rank=4, linears=linears)

    def peak(nodes: int) -> int:
        sent = updates([near(start, place) for place in range(4)] * (nodes // 4))
        tracemalloc.start()
        try:
            aggregate(chosen, start, sent, round=1)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(12), peak(120)
    assert many <= 1.1 * few
    assert many < 1500 * 1500 * 4 / 2


@limits(max_examples=30, deadline=None)
@given(rank=st.integers(1, 6), alpha=st.floats(0.5, 64), seed=st.integers(0, 99))
def test_the_norm_is_that_of_the_change_of_the_product(rank: int, alpha: float, seed: int) -> None:
    """Of alpha / rank · B·A, over all linears, computed without any matrix of that size; ranks may differ."""
    start, sent = adapter(seed, rank=4), adapter(seed + 1, rank=rank)
    expected = (
        2.0
        * alpha
        / 8
        * np.sqrt(sum(np.square(products(sent)[name] - values).sum() for name, values in products(start).items()))
    )
    chosen = settings("product", rank=4, alpha=alpha)
    assert product.norm(chosen, start, sent) == pytest.approx(expected, rel=1e-9)
    assert product.norm(chosen, start, start) == pytest.approx(0.0, abs=1e-4)
