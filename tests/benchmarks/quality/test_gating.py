import pytest
import torch

from benchmarks.quality import gating
from benchmarks.quality.gating import Blocks, Gates
from moehub.router.route import Route


def test_a_block_decides_once() -> None:
    """All linears of a block take the route that its first one's input made."""
    asked = []

    def decide(place: str, x: torch.Tensor) -> Route:
        asked.append((place, float(x.sum())))
        return gating.chosen(torch.randn(len(x), 4), 2)

    blocks = Blocks(decide)
    first = blocks.route("model.layers.0.self_attn.q_proj", torch.ones(3, 2))
    assert blocks.route("model.layers.0.mlp.down_proj", torch.zeros(3, 5)) is first
    assert blocks.route("model.layers.1.self_attn.q_proj", torch.ones(3, 2)) is not first
    assert asked == [("model.layers.0", 6.0), ("model.layers.1", 6.0)]


@pytest.mark.parametrize("window", [1, 3, None])
def test_the_mean_of_a_window_stays_within_its_text(window: int | None) -> None:
    """It is what a loop over the tokens of each text makes of it."""
    x, lengths = torch.randn(11, 2), (5, 4, 2)
    positions = torch.cat([torch.arange(length) for length in lengths])
    expected = []
    for text in x.split(lengths):
        for end in range(1, len(text) + 1):
            begin = 0 if window is None else max(0, end - window)
            expected.append(text[begin:end].mean(0))
    torch.testing.assert_close(gating.window_mean(x, positions, window), torch.stack(expected))


def test_what_nobody_gets_is_left_out() -> None:
    """The last column takes its share of the weight, and no expert gets it."""
    route = gating.chosen(torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]]), 2)
    share = torch.tensor([[0.0, 1.0, 2.0]]).exp()[0, 1:] / torch.tensor([1.0, 2.0]).exp().sum()
    torch.testing.assert_close(route.dense[0], torch.tensor([0.0, float(share[0])]))
    torch.testing.assert_close(route.dense[1].sum(), torch.tensor(1.0))


def test_equal_use_of_all_columns_is_balanced() -> None:
    """The imbalance is 1 where all are chosen alike, and the number of columns where one has everything."""
    alike = 20 * torch.eye(4).repeat(3, 1)
    one = torch.tensor([[40.0, 0.0, 0.0, 0.0]])
    assert float(gating.imbalance(alike, 1)) == pytest.approx(1)
    assert float(gating.imbalance(one, 1)) == pytest.approx(4)


def test_load_balancing_lowers_the_imbalance() -> None:
    """Steps down its gradient spread the choices of a gate that always chose the same."""
    gates = Gates(["here"], 6, 4, seed=0)
    gates.bias.data[0, 0] = 2.0
    x = torch.randn(64, 6, generator=torch.Generator().manual_seed(0))
    before = gating.imbalance(gates.logits("here", x), 2)
    optimizer = torch.optim.AdamW(gates.parameters(), lr=0.05, weight_decay=0.0)
    for _ in range(40):
        optimizer.zero_grad()
        gating.imbalance(gates.logits("here", x), 2).backward()
        optimizer.step()
    after = gating.imbalance(gates.logits("here", x), 2)
    assert after.item() < 0.8 * before.item()


def test_the_z_loss_is_the_squared_log_of_the_sum() -> None:
    """Two logits of 0 give (log 2)²."""
    assert float(gating.z_loss(torch.zeros(3, 2))) == pytest.approx(0.6931472**2)
