import importlib

import pytest
import torch

from benchmarks.engine import interleaved, world
from benchmarks.engine.__main__ import PARTS
from benchmarks.engine.mixture import dense_loop
from moehub.router.backends.loop import loop
from moehub.router.route import Route


@pytest.mark.parametrize("part", PARTS)
def test_every_part_measures(part: str) -> None:
    """What the command names is there to be called."""
    assert callable(importlib.import_module(f"benchmarks.engine.{part}").measure)


def test_ratios_are_of_the_same_turn() -> None:
    """A machine that slows down slows all works of a turn: ratios stay what they are. The first turn is left out."""
    now, taken = [0.0], {"base": iter([9.0, 1.0, 2.0, 8.0]), "other": iter([1.0, 3.0, 6.0, 24.0])}

    def work(name: str) -> None:
        now[0] += next(taken[name])

    works = {name: lambda name=name: work(name) for name in taken}
    ratios, seconds = interleaved(works, against="base", turns=3, clock=lambda: now[0])
    assert (ratios["other"].median, ratios["other"].least, ratios["other"].most) == (3.0, 3.0, 3.0)
    assert seconds == 2.0


def test_the_dense_loop_computes_the_same() -> None:
    """The peer that training through the MoE is compared with is no strawman: it gives the loop's output."""
    x, y, A, B = torch.randn(9, 6), torch.randn(9, 5), torch.randn(3, 2, 6), torch.randn(3, 2, 5)
    route = Route(torch.rand(9, 3).argsort(-1)[:, :2], torch.rand(9, 2), 3)
    options = {"A": A, "B": B, "scale": torch.rand(3)}
    torch.testing.assert_close(dense_loop(x, y, route, **options), loop(x, y, route, **options))


def test_a_twin_has_the_same_tensors() -> None:
    """The base that a MoE is compared with is the very one inside it."""
    plain = world.base(torch.float32, layers=1, hidden=64, intermediate=96)
    other = world.twin(plain)
    ids = world.draw(0, world.VOCABULARY, 1, 8)
    with torch.no_grad():
        assert torch.equal(plain(input_ids=ids).logits, other(input_ids=ids).logits)
    own = dict(plain.named_parameters())
    assert all(own[name].data_ptr() == one.data_ptr() for name, one in other.named_parameters())
