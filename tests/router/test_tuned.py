import copy
import math

import pytest
import torch
from torch import Tensor

from moehub.experts.features import recipe_for
from moehub.router.balance import drift, imbalance
from moehub.router.posterior import filter_chunked, filter_loop
from moehub.router.tuned import CHANCES, Correction, Facts, OpenGate, TunedGate, open_gate, tunable
from tests.router.beliefs import start
from tests.router.test_gate import BATCH, HIDDEN, gate, window

CPU = torch.device("cpu")
METHODS = ["evidence", "lda", "evidence+lda"]


def opened(method: str) -> OpenGate:
    """Return a gate to be learned, in float64 but for features, which are float32 whatever happens."""
    one = open_gate(gate(method, null_margin=0.05), hidden=HIDDEN)
    counts = [source for source in one.prior.sources if not hasattr(source, "recipe")]
    for part in (one.shifts, one.correction, *counts):
        part.double()
    return one


def learned(method: str = "evidence+lda") -> TunedGate:
    """Return a gate that learned something, whatever."""
    one = open_gate(gate(method), hidden=HIDDEN)
    generator = torch.Generator().manual_seed(3)
    one.move({name: torch.randn(now.shape, generator=generator).double() / 2 for name, now in one.learned().items()})
    return one.closed(Facts(tokens=7))


def weights(some: TunedGate, ids: Tensor = BATCH) -> Tensor:
    found: Tensor = some(window(ids), some.begin(len(ids), CPU))[0]
    return found


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("null", [True, False], ids=["with null", "without null"])
def test_a_gate_that_learned_nothing_is_the_untuned_gate_bit_for_bit(method: str, *, null: bool) -> None:
    """Open or closed, with a correction or biases alone."""
    plain = gate(method, null=null)
    expected, _ = plain(window(BATCH), plain.begin(len(BATCH), CPU))
    for hidden in (HIDDEN, None):
        one = open_gate(gate(method, null=null), hidden=hidden)
        decision = one.decide(window(BATCH), one.begin(len(BATCH), CPU))
        assert torch.equal(decision.gate, expected)
        torch.testing.assert_close(decision.log_scale, torch.zeros_like(decision.log_scale), atol=1e-12, rtol=0)
        assert torch.equal(weights(one.closed(Facts())), expected)


def test_what_is_learned_is_added_to_the_logarithm_of_the_posterior() -> None:
    """softmax(log p + w·h + b), and the logarithm of what it was divided by, written out."""
    one = learned()
    prior, _ = one.prior(window(BATCH), one.prior.begin(len(BATCH), CPU))
    correction, _ = one.correction(window(BATCH), one.correction.begin(len(BATCH), CPU), CPU)
    logits = prior.log() + correction
    decision = one.decide(window(BATCH), one.begin(len(BATCH), CPU))
    torch.testing.assert_close(decision.gate, logits.softmax(-1), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close(decision.log_scale, logits.logsumexp(-1), atol=1e-12, rtol=1e-9)
    assert not torch.allclose(decision.gate, prior, atol=1e-2)


@pytest.mark.parametrize("cut", [1, 16, 33])
def test_a_text_in_two_windows_is_one_text(cut: int) -> None:
    """The correction's running mean is part of the gate's state, in select as well."""
    one = learned()
    whole, end = one(window(BATCH), one.begin(len(BATCH), CPU))
    first, state = one(window(BATCH[:, :cut]), one.begin(len(BATCH), CPU))
    second, after = one(window(BATCH[:, cut:]), state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(after.memories[-1], end.memories[-1])
    rows = torch.tensor([2, 0])
    swapped, _ = one(window(BATCH[rows][:, cut:]), state.select(rows))
    torch.testing.assert_close(swapped, second[rows])


def test_padding_is_not_read() -> None:
    """Text with padding before it is corrected as text without."""
    one, pad = learned(), 11
    ids = torch.cat([torch.zeros(len(BATCH), pad, dtype=torch.int64), BATCH], 1)
    mask = torch.arange(ids.shape[1]) >= pad
    found = one(window(ids, mask.expand(ids.shape)), one.begin(len(ids), CPU))[0]
    torch.testing.assert_close(found[:, pad:], weights(one), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_reach_all_that_is_learned_and_are_the_slopes(method: str) -> None:
    """Of every number, bias and vector, through the filter and its chunks: as finite differences have them."""
    one = opened(method)
    names = list(one.learned())
    assert {f"number/{name}" for name in tunable(one.prior)} | {"bias", "weight"} == set(names)
    target = torch.randn(*BATCH.shape, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def loss() -> Tensor:
        decision = one.decide(window(BATCH), one.begin(len(BATCH), CPU))
        return (decision.gate * target).sum() + drift(decision.log_scale)

    loss().backward()
    for name, parameter in one.learned().items():
        assert parameter.grad is not None
        place = parameter.grad.abs().argmax()
        slope = float(parameter.grad.flatten()[place])
        assert slope != 0, name
        flat, step = parameter.data.view(-1), 1e-4
        with torch.no_grad():
            flat[place] += step
            above = float(loss())
            flat[place] -= 2 * step
            below = float(loss())
            flat[place] += step
        assert (above - below) / (2 * step) == pytest.approx(slope, rel=2e-3, abs=1e-7), name


def test_a_rate_that_is_learned_filters_alike_in_chunks_and_token_by_token() -> None:
    """The fast filter's gradient for ρ and for the evidence is that of its plain twin."""
    gradients = []
    for chain in (filter_chunked, filter_loop):
        rho = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
        evidence = (torch.randn(2, 53, 4, generator=torch.Generator().manual_seed(0)) * 20).double().requires_grad_()
        weighted = chain(evidence, start(2, 4, CPU), rho) * torch.arange(4.0)
        weighted.square().sum().backward()
        assert rho.grad is not None
        assert evidence.grad is not None
        gradients.append((rho.grad, evidence.grad))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=1e-8)


def test_numbers_stay_what_they_are() -> None:
    """However far it goes, a probability stays between 0 and 1 and a factor above 0; what stands at 0 is left alone."""
    one = open_gate(gate("evidence", pair_weight=0.0), hidden=None)
    assert set(one.shifts) == {*tunable(one.prior)} - {"pair_weight", "null_margin"}
    for distance in (-8.0, 8.0):
        one.move({name: torch.full(now.shape, distance) for name, now in one.learned().items()})
        numbers = one.numbers()
        assert all(0 < numbers[name] < 1 for name in CHANCES)
        assert numbers["kappa"] == pytest.approx(one.began["kappa"] * math.exp(distance))
        assert numbers["pair_weight"] == 0


def test_a_change_and_its_move_are_each_others_inverse() -> None:
    """What one gate learned, moved onto another from the same start, makes the same gate to the bit."""
    one, other = (open_gate(learned(), hidden=None) for _ in range(2))
    with torch.no_grad():
        for parameter in one.learned().values():
            parameter.add_(torch.rand(parameter.shape) / 3)
    other.move(one.change())
    for mine, theirs in zip(one.learned().values(), other.learned().values(), strict=True):
        assert torch.equal(mine, theirs)
    assert one.numbers() == other.numbers()


def test_a_gate_can_be_tuned_again() -> None:
    """It begins as it ended, keeps what it had, and may be given a correction that it had not."""
    before = learned("evidence")
    expected = weights(before)
    again = open_gate(copy.deepcopy(before), hidden=HIDDEN)
    assert torch.equal(weights(again), expected)
    assert again.facts == Facts(tokens=7)
    biased = open_gate(gate("evidence"), hidden=None)
    biased.move({name: torch.ones(now.shape) for name, now in biased.learned().items()})
    few = biased.closed(Facts())
    expected, wider = weights(few), open_gate(few, hidden=HIDDEN)
    assert set(wider.learned()) - {"weight"} == set(biased.learned())
    torch.testing.assert_close(weights(wider), expected, atol=1e-12, rtol=0)


def test_numbers_may_stay_as_they_are() -> None:
    """Then biases and vectors alone are learned."""
    assert set(open_gate(gate("evidence"), hidden=HIDDEN, numbers=False).learned()) == {"bias", "weight"}


def test_a_correction_of_any_size_keeps_a_gate_finite() -> None:
    """Thousands of nats are no different from enough of them."""
    one = TunedGate(
        gate("evidence"),
        Correction(torch.tensor([1e4, -1e4, 0.0]), torch.randn(3, HIDDEN) * 1e4, recipe_for(HIDDEN)),
        Facts(),
    )
    found = weights(one)
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found.sum(-1), torch.ones_like(found[..., 0]))


def test_imbalance_is_that_of_the_switch_transformer() -> None:
    """1 where all experts get as much, E where one gets all; what belongs to nobody does not count."""
    even = torch.eye(4, dtype=torch.float64).repeat(5, 1)
    assert float(imbalance(even, has_null=False)) == pytest.approx(1)
    assert float(imbalance(even[:1].repeat(9, 1), has_null=False)) == pytest.approx(4)
    nobody = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).double().repeat(50, 1)
    with_null = torch.cat([even[:3], nobody])
    assert float(imbalance(with_null, has_null=True)) == pytest.approx(1)
    assert bool(torch.isfinite(imbalance(nobody, has_null=True)))


def test_less_imbalance_is_more_alike() -> None:
    """Following its slope takes from the expert that gets the most."""
    logits = torch.randn(64, 3, generator=torch.Generator().manual_seed(0)).double() + torch.tensor([2.0, 0.0, 0.0])
    bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    imbalance((logits + bias).softmax(-1), has_null=False).backward()
    assert bias.grad is not None
    assert float(bias.grad[0]) > 0
    assert float(bias.grad[1:].max()) < 0
