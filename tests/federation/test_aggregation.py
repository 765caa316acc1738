"""The mean, and what all methods share: order, memory, refusals."""

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from moehub.errors import FederationError
from moehub.federation.aggregation import Update, aggregate
from moehub.federation.weights import A, Weights, digest
from tests.federation.updates import adapter, federation, flat, near, products, settings, updates

EVERY = ("ffa", "fedavg", "product", "median", "trimmed", "krum", "multikrum")


@limits(max_examples=40, deadline=None)
@given(
    tokens=st.lists(st.integers(1, 10**9), min_size=1, max_size=8),
    rank=st.integers(1, 9),
    size=st.sampled_from([1e-3, 1.0, 50.0]),
    seed=st.integers(0, 1000),
)
@pytest.mark.parametrize("aggregation", ["ffa", "fedavg"])
def test_the_mean_is_that_of_numpy(aggregation: str, tokens: list[int], rank: int, size: float, seed: int) -> None:
    """Weighted by tokens, each value for itself, whatever the shapes and weights."""
    chosen = settings(aggregation, rank=rank)
    start = adapter(seed, rank=rank)
    sent = [near(start, seed + 1 + node, size) for node in range(len(tokens))]
    expected = np.average([flat(each) for each in sent], axis=0, weights=tokens)
    actual = flat(aggregate(chosen, start, updates(sent, tokens), round=1).weights)
    assert np.abs(expected - actual).max() <= 1e-6 * max(1.0, np.abs(expected).max())


def test_the_mean_of_b_is_the_mean_of_the_products_where_a_is_frozen() -> None:
    """This is what `ffa` is for; averaging both factors is something else."""
    start = adapter(0)
    tokens = [10, 30, 60]
    frozen = [
        {**near(start, 1 + node), **{name: start[name] for name in start if name.endswith(A)}} for node in range(3)
    ]
    moving = [near(start, 1 + node) for node in range(3)]

    def error(sent: list[Weights]) -> float:
        mean = products(aggregate(settings("fedavg"), start, updates(sent, tokens), round=1).weights)
        return max(
            float(np.abs(np.average([products(each)[name] for each in sent], axis=0, weights=tokens) - found).max())
            for name, found in mean.items()
        )

    assert error(frozen) <= 1e-5
    assert error(moving) > 1e-2


@pytest.mark.parametrize("aggregation", EVERY)
def test_equal_sets_of_updates_give_equal_bytes(aggregation: str) -> None:
    """Replies come in any order; the adapter does not depend on it."""
    chosen, start, sent = federation(aggregation, clip=True)
    given_updates = updates(sent, [5, 4, 3, 2, 1])
    once = aggregate(chosen, start, given_updates, round=1)
    again = aggregate(chosen, start, [given_updates[place] for place in (3, 0, 4, 1, 2)], round=1)
    assert digest(once.weights) == digest(again.weights)
    assert (once.norms, once.clipped, once.excluded) == (again.norms, again.clipped, again.excluded)


@pytest.mark.parametrize("aggregation", EVERY)
def test_what_comes_out_is_what_was_sent_in_form(aggregation: str) -> None:
    """Same names in the same order, same shapes, float32: it travels next."""
    chosen, start, sent = federation(aggregation)
    found = aggregate(chosen, start, updates(sent), round=1).weights
    assert [(name, each.shape, each.dtype) for name, each in start.items()] == [
        (name, each.shape, each.dtype) for name, each in found.items()
    ]


@pytest.mark.parametrize("aggregation", EVERY)
def test_nodes_that_agree_get_what_they_sent(aggregation: str) -> None:
    """Whatever the method, with and without clipping."""
    for clip in (False, True):
        chosen, start, _ = federation(aggregation, clip=clip)
        sent = near(start, 1)
        found = aggregate(chosen, start, updates([sent] * 5), round=1)
        if aggregation == "product":
            for name, expected in products(sent).items():
                np.testing.assert_allclose(products(found.weights)[name], expected, atol=1e-5)
        else:
            np.testing.assert_allclose(flat(found.weights), flat(sent), rtol=0, atol=1e-6)
        assert found.clipped == ()


@pytest.mark.parametrize("aggregation", sorted({*EVERY} - {"product"}))
def test_the_servers_rate_multiplies_the_change(aggregation: str) -> None:
    """Whatever the method makes of the updates, and after clipping."""
    start = adapter(0)
    sent = [near(start, 1 + node) for node in range(6)]
    changes = {
        rate: flat(aggregate(settings(aggregation, server_rate=rate), start, updates(sent), round=1).weights)
        - flat(start)
        for rate in (1.0, 2.5)
    }
    assert np.abs(changes[2.5] - 2.5 * changes[1.0]).max() <= 1e-5 * np.abs(changes[1.0]).max()


def test_the_servers_rate_multiplies_the_change_of_the_product() -> None:
    """Under `product` it is B·A that moves so much further; at full rank, exactly so."""
    square = {"model.0.q": (12, 12)}
    start = adapter(0, rank=12, linears=square)
    sent = [near(start, 1 + node) for node in range(2)]
    before = products(start)

    def moved(rate: float) -> dict[str, Any]:
        found = aggregate(settings("product", rank=12, server_rate=rate), start, updates(sent), round=1).weights
        return {name: each - before[name] for name, each in products(found).items()}

    once, twice = moved(1.0), moved(2.0)
    for name, each in once.items():
        assert np.abs(twice[name] - 2 * each).max() <= 1e-4 * np.abs(each).max()


@pytest.mark.parametrize("aggregation", ["ffa", "fedavg"])
def test_one_outlier_moves_the_mean(aggregation: str) -> None:
    """The plain mean has no defence of its own: that is what clipping and the others are for."""
    chosen, start, sent = federation(aggregation)
    sent[0] = {name: start[name] - 100 * (values - start[name]) for name, values in sent[0].items()}
    found = aggregate(chosen, start, updates(sent), round=1).weights
    assert float((flat(found) - flat(start)) @ (flat(sent[1]) - flat(start))) < 0


class Counted:
    """Loads fresh copies and counts how many are alive at once."""

    def __init__(self) -> None:
        self.alive = self.most = self.loads = 0

    def update(self, node: str, weights: Weights) -> Update:
        return Update(node, 100, self._load(weights))

    def _load(self, weights: Weights) -> Callable[[], Weights]:
        def load() -> Weights:
            found = {name: values.copy() for name, values in weights.items()}
            self.loads += 1
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(next(iter(found.values())), self._gone)
            return found

        return load

    def _gone(self) -> None:
        self.alive -= 1


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("aggregation", ["ffa", "fedavg", "product"])
def test_one_update_is_in_memory_at_a_time(aggregation: str, clip: bool) -> None:
    """So that the memory of the server does not grow with the number of contributors."""
    chosen, start, sent = federation(aggregation, nodes=6, clip=clip)
    counted = Counted()
    gc.disable()
    try:
        aggregate(chosen, start, [counted.update(str(node), each) for node, each in enumerate(sent)], round=1)
    finally:
        gc.enable()
    assert (counted.most, counted.alive) == (1, 0)
    assert counted.loads == 2 * len(sent), "once for its norm, once for the mean"


@pytest.mark.parametrize("aggregation", EVERY)
def test_a_round_without_updates_is_refused(aggregation: str) -> None:
    """There is nothing to go on with."""
    chosen, start, _ = federation(aggregation)
    with pytest.raises(FederationError, match="round 3: there is no update"):
        aggregate(chosen, start, [], round=3)


@pytest.mark.parametrize("tokens", [0, -5])
@pytest.mark.parametrize("aggregation", EVERY)
def test_an_update_without_tokens_is_refused(aggregation: str, tokens: int) -> None:
    """A weight of zero divides by zero, and a negative one subtracts others' work."""
    chosen, start, sent = federation(aggregation)
    with pytest.raises(FederationError, match="node-01 sent an update that learned from no token"):
        aggregate(chosen, start, updates(sent, [9, tokens, 9, 9, 9]), round=1)


def test_an_adapter_beyond_float32_is_refused() -> None:
    """Factors that are finite as they come need not be so when they are balanced."""
    chosen, start, _ = federation("product")
    huge = {name: np.full_like(values, 3e38) for name, values in start.items()}
    with pytest.raises(FederationError, match=r"round 1: the product of 1 updates.* set clip to true"):
        aggregate(chosen, start, updates([huge]), round=1)


def test_aggregating_loads_no_torch() -> None:
    """The server's process stays small: about 130 MB instead of 480."""
    script = (
        "import sys, moehub.federation.aggregation; print([name for name in ('torch', 'scipy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
