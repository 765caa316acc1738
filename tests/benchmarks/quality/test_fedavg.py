import copy

import torch

from benchmarks.quality import gating, training
from benchmarks.quality.gating import Gates
from benchmarks.quality.methods import fedavg
from benchmarks.quality.methods.fedavg import LOCAL, Client
from benchmarks.quality.training import Learner
from benchmarks.quality.world import World


def test_one_contributor_alone_is_local_training(bench: World) -> None:
    """The mean of one is what its own training makes."""
    learner, rows = Learner(bench), training.own(bench, "law")
    gates = Gates(learner.places, learner.hidden, 4, seed=0)
    local = copy.deepcopy(gates)
    stream = training.batches({"law": rows}, "fedavg law", training.OWN_TOKENS)
    training.descend(
        local,
        lambda some: learner.loss(learner.pack(some), gating.by_block(local, 2)),
        stream,
        rate=1e-2,
        steps=LOCAL,
    )
    fedavg.one_round(gates, [Client(learner, "law", rows)], 2, rate=1e-2, advance=lambda *_: None)
    for name, one in local.state_dict().items():
        torch.testing.assert_close(gates.state_dict()[name], one)


def test_a_client_leaves_what_it_was_given(bench: World) -> None:
    """Everybody begins a round from the same gates."""
    learner = Learner(bench)
    gates = Gates(learner.places, learner.hidden, 4, seed=0)
    before = copy.deepcopy(gates.state_dict())
    after = Client(learner, "law", training.own(bench, "law")).train(gates, 2, rate=1e-2, steps=2)
    assert all(torch.equal(before[name], one) for name, one in gates.state_dict().items())
    assert not torch.equal(after["weight"], before["weight"])


def test_who_has_more_text_weighs_more() -> None:
    """The mean is weighted by tokens."""
    states = [{"w": torch.tensor([1.0])}, {"w": torch.tensor([5.0])}]
    assert fedavg.averaged(states, [3, 1])["w"].tolist() == [2.0]
