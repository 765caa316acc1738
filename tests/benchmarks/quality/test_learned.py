import pytest
import torch

from benchmarks.quality import gating
from benchmarks.quality.methods.learned import Kind, Pooled
from benchmarks.quality.rows import Held
from benchmarks.quality.training import own
from benchmarks.quality.world import World

_KINDS = [Kind("", by_layer=by_layer, balanced=False) for by_layer in (False, True)]


@pytest.mark.parametrize("kind", _KINDS)
def test_a_gate_answers_as_it_was_trained(bench: World, kind: Kind) -> None:
    """What a batch costs in training is what the entrant makes of those rows."""
    pooled = Pooled(bench, kind)
    gates, rows = pooled.gates(), own(bench, "law")[:3]
    owners = tuple(torch.zeros_like(row.ids) for row in rows)
    answer = pooled.entrant(gates).answer(Held("law", tuple(rows), owners))
    found = float(torch.cat(answer.nats).mean())
    assert pooled.loss(gates, gating.K, rows).item() == pytest.approx(found, rel=1e-4)


@pytest.mark.parametrize("by_layer", [False, True])
def test_a_balanced_gate_pays_for_imbalance(bench: World, *, by_layer: bool) -> None:
    """The two losses are added for each gate, with the papers' coefficients."""
    plain, balanced = (Pooled(bench, Kind("", by_layer=by_layer, balanced=each)) for each in (False, True))
    gates, rows, seen = plain.gates(), own(bench, "law")[:3], list[torch.Tensor]()
    packed = plain.learner.pack(rows)
    plain.learner.loss(packed, plain.routing(gates, gating.K, packed, seen))
    extra = sum(0.01 * gating.imbalance(one[packed.real], 2) + 0.001 * gating.z_loss(one[packed.real]) for one in seen)
    assert len(seen) == (2 if by_layer else 1)
    expected = plain.loss(gates, gating.K, rows) + extra
    torch.testing.assert_close(balanced.loss(gates, gating.K, rows), expected)


def test_one_gate_decides_for_all_layers(bench: World) -> None:
    """The entrant says who was chosen, which gates by layer cannot."""
    held = bench.tune["law"]
    one, many = (Pooled(bench, kind) for kind in _KINDS)
    assert one.entrant(one.gates()).answer(held).best is not None
    assert many.entrant(many.gates()).answer(held).best is None
