import torch

from benchmarks.quality import training
from benchmarks.quality.methods import phatgoose
from benchmarks.quality.methods.phatgoose import Scored, Training, Vectors
from benchmarks.quality.training import Learner
from benchmarks.quality.world import World


def test_scores_are_the_formula() -> None:
    """Both sides are standardised, and their product is divided by the root of the width."""
    x, vectors = torch.randn(5, 8), torch.randn(3, 8)

    def standard(each: torch.Tensor) -> torch.Tensor:
        return (each - each.mean(-1, keepdim=True)) / (each.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()

    torch.testing.assert_close(phatgoose.scores(x, vectors), standard(x) @ standard(vectors).T / 8**0.5)


def test_the_two_best_share_by_softmax() -> None:
    """Every linear chooses two experts, and nobody gets none of the weight."""
    vectors = [Vectors({"linear": 8}) for _ in range(3)]
    for one in vectors:
        torch.nn.init.normal_(one["linear"])
    x = torch.randn(6, 8)
    route = Scored(vectors).route("linear", x)
    best, indices = phatgoose.scores(x, torch.stack([one["linear"] for one in vectors])).topk(2, -1)
    torch.testing.assert_close(route.weights, best.softmax(-1))
    assert torch.equal(route.indices, indices)


def test_a_contributor_trains_its_vectors_alone(bench: World) -> None:
    """Base, experts and the vectors of others stay, every linear's vector moves, and the loss falls."""
    learner, wide = Learner(bench), phatgoose.widths(bench)
    before = {name: one.clone() for name, one in learner.moe.named_parameters()}
    rows, mine, other = training.own(bench, "law"), Vectors(wide), Vectors(wide)
    packed = learner.pack(rows)
    begin = learner.loss(packed, Training(mine, 1, 3)).item()
    phatgoose.train(learner, 1, rows, mine, rate=5e-2, steps=10, advance=lambda *_: None)
    assert learner.loss(packed, Training(mine, 1, 3)).item() < begin
    assert all(mine[key].any() for key in wide)
    assert not any(other[key].any() for key in wide)
    assert all(torch.equal(one, before[name]) for name, one in learner.moe.named_parameters())


def test_a_gate_of_zero_lets_half_through() -> None:
    """As in the paper, a contributor begins with half of its expert."""
    route = Training(Vectors({"linear": 4}), 1, 3).route("linear", torch.randn(5, 4))
    assert torch.equal(route.dense, torch.tensor([[0.0, 0.5, 0.0]] * 5))
