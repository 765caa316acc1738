import numpy as np
import torch

from benchmarks.quality.cma import minimise
from benchmarks.quality.composites import Composites, factors
from benchmarks.quality.methods import lorahub
from benchmarks.quality.world import World
from moehub.experts.packing import IGNORED


def test_the_search_finds_the_lowest_point() -> None:
    """A bowl that is a thousand times as steep one way as the other is descended to its ground."""
    steepness, ground = np.geomspace(1, 1000, 6), np.linspace(-1, 1, 6)

    def loss(x: np.ndarray) -> float:
        assert (np.abs(x) <= 1.5).all()
        return float((steepness * (x - ground) ** 2).sum())

    generator = np.random.default_rng(0)
    found = minimise(loss, np.zeros(6), sigma=0.5, bound=1.5, evaluations=3000, generator=generator)
    np.testing.assert_allclose(found, ground, atol=1e-3)


def test_the_search_asks_no_more_than_it_may() -> None:
    """The loss is asked for as often as was said, and the best point asked for is returned."""
    asked = []

    def loss(x: np.ndarray) -> float:
        asked.append((float((x - 0.3) @ (x - 0.3)), x))
        return asked[-1][0]

    generator = np.random.default_rng(0)
    found = minimise(loss, np.zeros(4), sigma=0.5, bound=1.5, evaluations=21, generator=generator)
    assert len(asked) == 21
    np.testing.assert_array_equal(found, min(asked, key=lambda one: one[0])[1])


def test_weights_are_no_worse_than_none(bench: World) -> None:
    """The search begins with the base, and returns what is best by loss and the size of the weights."""
    found = factors(bench)
    composites = Composites(bench, found, 3)
    held = lorahub.examples(bench.tune["law"])
    loss = lorahub._loss(composites, 1, found, held)
    weights = lorahub.search(composites, 1, found, held, seed="0 law")
    assert weights.abs().max() <= lorahub.BOUND
    assert loss(weights.numpy()) <= loss(np.zeros(3))


def test_the_loss_is_that_of_the_base_and_the_penalty(bench: World) -> None:
    """Without weights it is the base's mean loss of the learned tokens; weights cost 0.05 times their mean size."""
    found = factors(bench)
    composites = Composites(bench, found, 3)
    held = lorahub.examples(bench.tune["math"])
    total, count = 0.0, 0
    for row in held.rows:
        with torch.no_grad():
            logits = bench.forward(row.ids[None], None)[0, :-1].log_softmax(-1)
        learned = row.labels[1:] != IGNORED
        total -= float(logits[learned].gather(-1, row.ids[1:][learned, None]).sum())
        count += int(learned.sum())
    loss = lorahub._loss(composites, 0, found, held)
    np.testing.assert_allclose(loss(np.zeros(3)), total / count, rtol=1e-4)
