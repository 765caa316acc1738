import torch

from benchmarks.quality.method import batch
from benchmarks.quality.sticky import Sticky, filtered
from benchmarks.quality.world import World
from tests.benchmarks.quality.conftest import same


def test_one_step_by_hand() -> None:
    """A step mixes in the chance of a new owner, then multiplies by the likelihood."""
    evidence = torch.tensor([[[3.0, 1.0], [1.0, 5.0]]]).log()
    after = filtered(evidence, 0.2)[0]
    same(after[0], torch.tensor([0.75, 0.25]))
    mass = torch.tensor([(0.8 * 0.75 + 0.1) * 1, (0.8 * 0.25 + 0.1) * 5])
    same(after[1], mass / mass.sum())


def test_without_switching_it_is_bayes() -> None:
    """With ρ = 0 the posterior is the product of all likelihoods."""
    evidence = torch.randn(2, 9, 4, dtype=torch.float64)
    same(filtered(evidence, 0.0), evidence.cumsum(1).softmax(-1))


def test_large_evidence_does_not_overflow() -> None:
    """Likelihoods of thousands of nats are as good as certain."""
    evidence = torch.tensor([[[0.0, -5000.0], [-5000.0, 0.0]]], dtype=torch.float64)
    assert filtered(evidence, 0.01).isfinite().all()


def test_weights_are_the_largest_of_the_posterior(bench: World) -> None:
    """No more than top_k have weight, and weights sum to one."""
    one = batch(bench.tune["law"], [0])
    gate = Sticky(lambda one: torch.randn(*one.ids.shape, 4), 1.0, 0.1, top_k=2)
    weights = gate(one)
    assert int((weights > 0).sum(-1).max()) <= 2
    same(weights.sum(-1), torch.ones(one.ids.shape, dtype=torch.float64))
