"""Changes beyond the median norm are scaled down to it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from moehub.federation.aggregation import aggregate, clipping, mean, norms, product
from moehub.federation.weights import B, Weights
from tests.federation.updates import adapter, cosine, federation, flat, near, products, settings, updates


@limits(max_examples=60, deadline=None)
@given(norms=st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=12))
def test_nothing_is_longer_than_the_median_afterwards(norms: list[float]) -> None:
    """At least half of the nodes stay as they are."""
    limit = clipping.limit(settings(clip=True), norms)
    scaled = [norm * clipping.scale(norm, limit) for norm in norms]
    assert max(scaled) <= limit * (1 + 1e-12)
    assert limit == sorted(norms)[(len(norms) - 1) // 2]
    assert 2 * sum(one == other for one, other in zip(norms, scaled, strict=True)) >= len(norms)


@pytest.mark.parametrize("norms", [[5.0], [1.0, 100.0]])
def test_one_or_two_nodes_are_never_clipped(norms: list[float]) -> None:
    """There is no telling which of two is the outlier."""
    assert clipping.limit(settings(clip=True), norms) == math.inf


def test_half_of_the_nodes_cannot_raise_the_limit() -> None:
    """Of an even number the lower median counts: two of four attackers do not pull it up."""
    assert clipping.limit(settings(clip=True), [1.0, 1.1, 1e9, 1e9]) == 1.1


def test_clipping_can_be_turned_off() -> None:
    """`clip: false` leaves every change as it is."""
    assert clipping.limit(settings(clip=False), [1.0, 1.0, 100.0]) == math.inf


def test_a_norm_of_zero_is_no_division() -> None:
    """Nodes that changed nothing may be in the majority."""
    limit = clipping.limit(settings(clip=True), [0.0, 0.0, 3.0])
    assert [clipping.scale(norm, limit) for norm in (0.0, 0.0, 3.0)] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize("aggregation", ["ffa", "fedavg", "product", "median", "trimmed", "krum", "multikrum"])
def test_who_was_clipped_is_named(aggregation: str) -> None:
    """Before every method, and with the norms as they came."""
    chosen, start, sent = federation(aggregation, clip=True)
    sent[3] = {name: start[name] + 50 * (values - start[name]) for name, values in sent[3].items()}
    found = aggregate(chosen, start, updates(sent), round=1)
    size = product.norm if aggregation == "product" else mean.norm
    assert found.norms == {f"node-{place:02d}": size(chosen, start, each) for place, each in enumerate(sent)}
    assert list(found.norms.values()) == norms(chosen, start, updates(sent))
    median = sorted(found.norms.values())[2]
    assert found.clipped == tuple(node for node, norm in found.norms.items() if norm > median)
    assert "node-03" in found.clipped


def test_the_mean_takes_the_clipped_changes() -> None:
    """Start + the mean of the changes, each no longer than the median."""
    chosen, start, sent = federation("ffa", clip=True)
    sent[0] = {name: start[name] - 100 * (values - start[name]) for name, values in sent[0].items()}
    changes = [flat(each) - flat(start) for each in sent]
    norms = [float(np.linalg.norm(each)) for each in changes]
    limit = float(np.median(norms))
    expected = np.mean([each * min(1, limit / norm) for each, norm in zip(changes, norms, strict=True)], axis=0)
    actual = flat(aggregate(chosen, start, updates(sent), round=1).weights) - flat(start)
    np.testing.assert_allclose(expected, actual, rtol=0, atol=1e-6)


def test_the_product_takes_the_clipped_changes_of_products() -> None:
    """Each product moves from the start towards the node's, no further than the median node went."""
    chosen, start, sent = federation("product", nodes=3, clip=True, rank=16)
    sent[0] = {name: 3 * values for name, values in sent[0].items()}
    before = products(start)
    changes = [{name: each - before[name] for name, each in products(one).items()} for one in sent]
    norms = [math.sqrt(sum(float(np.square(each).sum()) for each in one.values())) for one in changes]
    limit = float(np.median(norms))
    found = products(aggregate(chosen, start, updates(sent), round=1).weights)
    for name, values in before.items():
        expected = values + np.mean(
            [one[name] * min(1, limit / norm) for one, norm in zip(changes, norms, strict=True)], axis=0
        )
        assert np.abs(expected - found[name]).max() <= 1e-6 * np.abs(expected).max()


@pytest.mark.parametrize("aggregation", ["ffa", "fedavg", "product"])
def test_clipping_turns_an_attack_of_size_away(aggregation: str) -> None:
    """Two of ten nodes that send −100 times their change turn the mean around, unless they are clipped."""

    def angle(clip: bool) -> float:
        chosen, start, sent = federation(aggregation, nodes=10, clip=clip)
        if aggregation == "product":  # as in the first round: a product is turned by turning B
            start = {name: 0 * values if name.endswith(B) else values for name, values in start.items()}
        truth = _change(start, aggregate(chosen, start, updates(sent[2:]), round=1).weights, aggregation)
        for place in range(2):
            sent[place] = _turned(start, sent[place], aggregation)
        return cosine(_change(start, aggregate(chosen, start, updates(sent), round=1).weights, aggregation), truth)

    assert angle(clip=False) < -0.9
    assert angle(clip=True) > 0.9


def _change(start: Weights, weights: Weights, aggregation: str) -> np.ndarray:
    if aggregation != "product":
        return flat(weights) - flat(start)
    before, after = products(start), products(weights)
    return np.concatenate([(after[name] - before[name]).ravel() for name in before])


def _turned(start: Weights, weights: Weights, aggregation: str) -> Weights:
    if aggregation != "product":
        return {name: start[name] - 100 * (values - start[name]) for name, values in weights.items()}
    return {name: -100 * values if name.endswith(B) else values for name, values in weights.items()}


def test_the_norm_is_over_all_values() -> None:
    """In float64: of small changes of large weights nothing is lost but what float32 lost."""
    start = adapter(0, size=10.0)
    sent = near(start, 1, 1e-3)
    expected = float(np.linalg.norm(flat(sent) - flat(start)))
    assert mean.norm(settings(), start, sent) == pytest.approx(expected, rel=1e-12)


def test_two_nodes_of_one_name_are_two() -> None:
    """Who takes another's name does not take its norm: the long change is clipped all the same."""
    chosen, start, sent = federation("ffa", nodes=4, clip=True)
    long = {name: start[name] - 1000 * (values - start[name]) for name, values in sent[0].items()}
    named = [replace(each, node="same") for each in updates([long, *sent])]
    for order in (named, named[::-1]):
        found = aggregate(chosen, start, order, round=1)
        assert np.linalg.norm(flat(found.weights) - flat(start)) <= sorted(norms(chosen, start, named))[2]
