"""Differential privacy: the noise is what was asked for, it is fresh, and ε is the accountant's own number."""

import logging
import math
import sys

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant

from moehub.errors import FederationError
from moehub.federation.aggregation import aggregate, privacy
from moehub.federation.aggregation.update import Gathered
from moehub.federation.weights import Weights, digest, trained
from tests.federation.updates import adapter, federation, flat, near, settings, updates

WIDE = {"model.0.wide": (8, 30_000)}


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="flwr")


def gathered(start: Weights, sent: list[Weights], noise: float = 1.0, noise_clip: float = 1.0) -> Gathered:
    chosen = settings(noise=noise, noise_clip=noise_clip)
    return Gathered(chosen, start, tuple(updates(sent)), (1.0,) * len(sent), 1)


@pytest.mark.parametrize(("noise", "noise_clip", "nodes"), [(1.0, 1.0, 4), (0.5, 0.2, 2), (3.0, 10.0, 1)])
def test_the_noise_has_the_deviation_that_is_reported(noise: float, noise_clip: float, nodes: int) -> None:
    """Noise multiplier · clipping norm / nodes on each value of the mean, and centred."""
    start = trained(adapter(0, linears=WIDE), frozen_a=True)
    chosen = settings(noise=noise, noise_clip=noise_clip)
    found = aggregate(chosen, start, updates([start] * nodes), round=1)
    drawn = flat(found.weights) - flat(start)
    assert found.noise == noise * noise_clip / nodes
    assert drawn.std() == pytest.approx(found.noise, rel=0.02)
    assert abs(drawn.mean()) < 5 * found.noise / math.sqrt(len(drawn))


def test_below_the_noise_lies_the_mean_of_the_clipped_changes() -> None:
    """Every node counts the same, whatever its tokens; changes beyond `noise_clip` are scaled down to it."""
    _, start, sent = federation(nodes=4)
    sent[0] = {name: start[name] + 30 * (values - start[name]) for name, values in sent[0].items()}
    changes = [flat(each) - flat(start) for each in sent]
    limit = 1.1 * float(np.linalg.norm(changes[1]))
    expected = np.mean([each * min(1, limit / float(np.linalg.norm(each))) for each in changes], axis=0)
    chosen = settings(noise=1e-9, noise_clip=limit)
    found = aggregate(chosen, start, updates(sent, [1, 10, 100, 1000]), round=1)
    np.testing.assert_allclose(expected, flat(found.weights) - flat(start), rtol=0, atol=1e-6)
    assert found.clipped == ("node-00",)


def test_one_node_moves_the_mean_by_no_more_than_the_noise_covers() -> None:
    """The median of norms plays no part with noise: through it, one node would change how others are scaled."""
    _, start, sent = federation(nodes=5)
    larger = [{name: start[name] + 3 * (values - start[name]) for name, values in each.items()} for each in sent]
    limit = 2 * float(np.linalg.norm(flat(larger[0]) - flat(start)))
    chosen = settings(noise=1e-9, noise_clip=limit, clip=True)
    others = [*larger[:2], start]  # of a median: as long as the larger ones, and zero once another `start` joins
    without = 3 * (flat(aggregate(chosen, start, updates(others), round=1).weights) - flat(start))
    joined = 4 * (flat(aggregate(chosen, start, updates([*others, start]), round=1).weights) - flat(start))
    assert np.linalg.norm(without - joined) <= 1e-4 * limit


def test_the_noise_is_fresh_every_time() -> None:
    """Also where somebody fixed numpy's seed: noise that can be drawn again can be taken away."""
    start = trained(adapter(0), frozen_a=True)
    found = set()
    for _ in range(3):
        np.random.seed(0)  # noqa: NPY002 (this is what somebody does)
        found.add(digest(aggregate(settings(noise=1.0), start, updates([start] * 3), round=1).weights))
    assert len(found) == 3


def test_a_test_may_name_the_seed() -> None:
    """Equal seeds draw equal noise."""
    start = trained(adapter(0), frozen_a=True)
    drawn = [digest(privacy.noisy(gathered(start, [start] * 3), seed=seed).weights) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_others_draw_as_if_there_had_been_no_noise() -> None:
    """Numpy's global generator is put back."""
    start = trained(adapter(0), frozen_a=True)
    np.random.seed(3)  # noqa: NPY002 (the generator that is meant)
    expected = np.random.random(4)  # noqa: NPY002 (the same)
    np.random.seed(3)  # noqa: NPY002 (the same)
    privacy.noisy(gathered(start, [start]))
    np.testing.assert_array_equal(expected, np.random.random(4))  # noqa: NPY002 (the same)


def test_a_node_that_changed_nothing_is_no_division_by_zero() -> None:
    """Flower divides by the norm; one node must not end the round of all."""
    _, start, sent = federation(nodes=2)
    found = aggregate(settings(noise=1e-9, noise_clip=100.0), start, updates([start, sent[0]]), round=1)
    np.testing.assert_allclose((flat(sent[0]) + flat(start)) / 2, flat(found.weights), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("noise", "releases", "delta"), [(1.0, 1, 1e-5), (1.0, 10, 1e-5), (2.5, 3, 1e-6)])
def test_epsilon_is_that_of_the_accountant(noise: float, releases: int, delta: float) -> None:
    """Google's dp-accounting, asked without Flower, says the same."""
    accountant = RdpAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(noise), releases)
    expected = accountant.get_epsilon(delta)
    assert privacy.spent(settings(noise=noise, delta=delta), releases) == pytest.approx(expected, rel=1e-12)


def test_epsilon_is_near_the_exact_one() -> None:
    """One Gaussian release of σ = 1 has ε = 4.377 at δ = 1e-5 (Balle & Wang 2018); RDP is an upper bound."""
    assert 4.377 <= privacy.spent(settings(noise=1.0, delta=1e-5), 1) <= 4.377 * 1.1


def test_nothing_is_spent_before_the_first_release() -> None:
    """And each release costs."""
    found = [privacy.spent(settings(noise=1.0), releases) for releases in (0, 1, 2, 20)]
    assert found[0] == 0.0
    assert found == sorted(set(found))


def test_a_missing_accountant_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra, because it brings scipy."""
    for name in [name for name in sys.modules if name.split(".")[0] == "dp_accounting"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(FederationError, match=r"noise = 1.5 needs .* pip install 'moehub\[dp\]'"):
        privacy.spent(settings(noise=1.5), 0)


def test_noise_far_from_the_start_is_no_surprise() -> None:
    """Noise is on the change, not on the start: what was learned before stays."""
    start = trained(adapter(0, size=1000.0), frozen_a=True)
    sent = near(start, 1, 0.01)
    found = aggregate(settings(noise=0.01, noise_clip=10.0), start, updates([sent] * 10), round=1)
    assert np.abs(flat(found.weights) - flat(start)).max() < 1.0
