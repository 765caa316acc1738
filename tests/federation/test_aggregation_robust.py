"""Flower's robust strategies, as moehub calls them: what they withstand, and what they cannot."""

import logging
from typing import Any

import numpy as np
import pytest

from moehub.errors import FederationError
from moehub.federation.aggregation import aggregate, robust
from moehub.federation.weights import Weights, trained
from tests.federation.updates import adapter, cosine, federation, flat, near, settings, updates

ROBUST = ("median", "trimmed", "krum", "multikrum")


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="flwr")


def attacked(start: Weights, sent: list[Weights], attackers: int) -> list[Weights]:
    """Return the replies, the first ones turned around and a hundred times as large."""
    return [
        {name: start[name] - 100 * (values - start[name]) for name, values in each.items()}
        if place < attackers
        else each
        for place, each in enumerate(sent)
    ]


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("aggregation", ROBUST)
def test_two_attackers_of_ten_hardly_move_the_result(aggregation: str, clip: bool) -> None:
    """It points where the honest nodes' mean points, and is as long, although two send −100 times their change."""
    chosen, start, sent = federation(aggregation, nodes=10, malicious=2, clip=clip)
    truth = np.mean([flat(each) for each in sent[2:]], axis=0) - flat(start)
    found = aggregate(chosen, start, updates(attacked(start, sent, 2)), round=1)
    moved = flat(found.weights) - flat(start)
    assert cosine(moved, truth) > 0.95
    assert np.linalg.norm(moved) == pytest.approx(float(np.linalg.norm(truth)), rel=0.1)
    assert found.clipped == ((*(f"node-{place:02d}" for place in range(2)), *found.clipped[2:]) if clip else ())


@pytest.mark.parametrize(("aggregation", "holds"), [("ffa", False), ("median", True)])
def test_the_attack_is_one(aggregation: str, holds: bool) -> None:
    """The same two attackers turn the plain mean around."""
    chosen, start, sent = federation(aggregation, nodes=10)
    truth = np.mean([flat(each) for each in sent[2:]], axis=0) - flat(start)
    found = aggregate(chosen, start, updates(attacked(start, sent, 2)), round=1)
    assert (cosine(flat(found.weights) - flat(start), truth) > 0) is holds


def test_the_median_is_that_of_each_value() -> None:
    """FedMedian on changes is FedMedian on weights."""
    chosen, start, sent = federation("median", nodes=6)
    expected = np.median([flat(each) for each in sent], axis=0)
    actual = flat(aggregate(chosen, start, updates(sent), round=1).weights)
    np.testing.assert_allclose(expected, actual, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("nodes", "malicious"), [(5, 1), (5, 2), (7, 3), (49, 1), (10, 0), (100, 29)])
def test_trimmed_leaves_out_as_many_as_it_was_told_at_both_ends(nodes: int, malicious: int) -> None:
    """Flower takes a share; a share of 1/49 of 49 nodes rounds to none unless one is careful."""
    chosen, start, sent = federation("trimmed", nodes=nodes, malicious=malicious)
    ordered = np.sort([flat(each) for each in sent], axis=0)
    expected = ordered[malicious : nodes - malicious].mean(axis=0)
    actual = flat(aggregate(chosen, start, updates(sent), round=1).weights)
    np.testing.assert_allclose(expected, actual, rtol=0, atol=1e-6)


def test_krum_takes_one_node_and_names_the_others() -> None:
    """Of five nodes it takes one as it is."""
    chosen, start, sent = federation("krum", nodes=5)
    found = aggregate(chosen, start, updates(sent), round=1)
    (taken,) = set(range(5)) - {int(node.removeprefix("node-")) for node in found.excluded}
    np.testing.assert_allclose(flat(sent[taken]), flat(found.weights), rtol=0, atol=1e-6)


def test_multikrum_averages_the_others_by_their_tokens() -> None:
    """It leaves out `malicious` nodes, the attackers, and names them."""
    chosen, start, sent = federation("multikrum", nodes=7, malicious=2)
    tokens = [1, 2, 3, 4, 5, 6, 7]
    found = aggregate(chosen, start, updates(attacked(start, sent, 2), tokens), round=1)
    assert found.excluded == ("node-00", "node-01")
    expected = np.average([flat(each) for each in sent[2:]], axis=0, weights=tokens[2:])
    np.testing.assert_allclose(expected, flat(found.weights), rtol=0, atol=1e-6)


@pytest.mark.parametrize("aggregation", ["median", "trimmed"])
def test_methods_of_single_values_exclude_nobody(aggregation: str) -> None:
    """They have a part of every node."""
    chosen, start, sent = federation(aggregation)
    assert aggregate(chosen, start, updates(sent), round=1).excluded == ()


def test_krum_sees_small_changes_of_large_weights() -> None:
    """Distances of the weights themselves would drown in rounding: changes of a millionth are told apart."""
    chosen = settings("krum", malicious=1)
    start = trained(adapter(0, size=1000), frozen_a=True)
    random = np.random.default_rng(1)
    honest = {name: values + np.float32(1e-3) for name, values in start.items()}
    sent: list[Weights] = [
        {
            name: values + np.float32(1e-4) * random.integers(-1, 2, values.shape).astype(np.float32)
            for name, values in honest.items()
        }
        for _ in range(4)
    ]
    liar = {name: values - np.float32(1e-3) for name, values in start.items()}
    excluded = {aggregate(chosen, start, updates([*sent, liar]), round=each).excluded for each in (1, 2)}
    assert len(excluded) == 1
    assert "node-04" in excluded.pop()


@pytest.mark.parametrize(
    ("aggregation", "malicious", "need"), [("trimmed", 2, 5), ("krum", 1, 5), ("multikrum", 3, 9), ("median", 4, 1)]
)
def test_methods_name_how_many_nodes_they_need(aggregation: Any, malicious: int, need: int) -> None:
    """One less is refused; as many are enough."""
    chosen, start, sent = federation(aggregation, nodes=need, malicious=malicious)
    assert robust.needed(chosen) == need
    aggregate(chosen, start, updates(sent), round=1)
    if need > 1:
        with pytest.raises(
            FederationError, match=rf"round 7: {aggregation} withstands .* {need} or more replies, but {need - 1} "
        ):
            aggregate(chosen, start, updates(sent[:-1]), round=7)


@pytest.mark.parametrize(
    ("nodes", "cure"), [(4, "came: raise"), (6, "set malicious to 1, raise"), (8, "set malicious to 2, raise")]
)
def test_the_cure_names_a_setting_that_works(nodes: int, cure: str) -> None:
    """Krum among so many nodes withstands this many, if any."""
    chosen, start, sent = federation("krum", nodes=nodes, malicious=3)
    with pytest.raises(FederationError, match=cure):
        aggregate(chosen, start, updates(sent), round=1)
    if "set" in cure:
        fitting = settings("krum", malicious=int(cure.split()[3].rstrip(",")))
        assert aggregate(fitting, start, updates(sent), round=1).weights.keys() == start.keys()


def test_copies_of_a_node_do_not_confuse_krum() -> None:
    """Equal updates are at distance 0 from each other."""
    chosen, start, sent = federation("krum", nodes=5)
    found = aggregate(
        chosen, start, updates([sent[0], sent[0], sent[0], near(start, 8, 5), near(start, 9, 5)]), round=1
    )
    np.testing.assert_allclose(flat(sent[0]), flat(found.weights), rtol=0, atol=1e-6)
