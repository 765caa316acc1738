import math

import pytest
import torch

from benchmarks.quality.method import Answer, top
from benchmarks.quality.rows import SWITCHING, Held
from benchmarks.quality.score import Sums, gain_kept, harm, kept, sums, together
from moehub.experts.packing import Row


def of(*losses: float, tokens: int = 10) -> Sums:
    return Sums([tokens * loss for loss in losses], [tokens] * len(losses), [], [])


BASE, ORACLE = [{"a": of(4.0, 4.0), "b": of(3.0)}], [{"a": of(2.0, 2.0), "b": of(2.5)}]
MINE = [{"a": of(2.5, 2.5), "b": of(2.5)}]


def test_the_gain_kept_is_a_share_of_the_oracles() -> None:
    """All of it is 100, none 0, each domain counts once, and together each gain counts by its size."""
    assert kept(BASE[0]["a"], MINE[0]["a"], ORACLE[0]["a"]) == 75
    assert gain_kept(BASE, MINE, ORACLE, ["a", "b"]).value == pytest.approx(87.5)
    assert together(BASE, MINE, ORACLE, ["a", "b"]) == pytest.approx(80)
    assert gain_kept(BASE, BASE, ORACLE, ["a"]).value == 0


def test_harm_is_a_share_of_the_loss() -> None:
    """A loss above the base's is harm, in percent."""
    assert harm(BASE, [{"a": of(4.4, 4.4)}], ["a"]).value == pytest.approx(10)


def test_an_interval_holds_its_figure() -> None:
    """Documents that differ widen it; without documents that differ there is none."""
    uneven = [{"a": of(2.0, 3.0)}]
    figure = gain_kept(BASE, uneven, ORACLE, ["a"])
    assert figure.low < figure.value < figure.high
    assert math.isnan(gain_kept(BASE, uneven, ORACLE, ["a"], interval=False).low)


def test_latency_counts_what_went_elsewhere() -> None:
    """Two tokens of a stretch went elsewhere in one, none in the other; the first stretch does not count."""
    ids = torch.arange(12)
    labels = ids.clone()
    labels[0] = -100
    owners = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0])
    held = Held(SWITCHING, (Row(ids, labels, (12,)),), (owners,))
    best = torch.tensor([1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0])
    found = sums(held, Answer((torch.ones(11, dtype=torch.float64),), (best,), (best,)))
    assert found.latency == 1
    assert found.right == pytest.approx(7 / 11)
    assert found.run == pytest.approx(11 / 4)


def test_the_largest_weights_stay() -> None:
    """All but the k largest go, and what is below the threshold, and the rest sums to one."""
    found = top(torch.tensor([[0.5, 0.3, 0.15, 0.05]]), 3, threshold=0.2)
    torch.testing.assert_close(found, torch.tensor([[0.625, 0.375, 0.0, 0.0]]))
