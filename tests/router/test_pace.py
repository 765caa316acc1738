import pytest
import torch
from torch import Tensor

from moehub.router import pace
from moehub.router.posterior import filter_chunked, filter_loop
from tests.router.beliefs import start

CPU = torch.device("cpu")
RATES, CHANGE = (0.0005, 0.02), 0.002


def evidence(batch: int, tokens: int, experts: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, tokens, experts, generator=torch.Generator().manual_seed(seed)) * 3


def follow(given: Tensor, belief: Tensor | None = None) -> Tensor:
    begin = pace.start(len(given), len(RATES), start(1, given.shape[-1], CPU)[0]) if belief is None else belief
    return pace.follow(given, begin, rates=RATES, change=CHANGE)


@pytest.mark.parametrize("tokens", [1, 15, 16, 53])
@pytest.mark.parametrize("experts", [1, 2, 9])
def test_chunks_equal_the_loop(tokens: int, experts: int) -> None:
    """With the chunked filter the belief is that of the recursion, to float64 rounding."""
    given, begin = evidence(3, tokens, experts), pace.start(3, len(RATES), start(1, experts, CPU)[0])
    plain = pace.follow(given, begin, rates=RATES, change=CHANGE, chain=filter_loop)
    torch.testing.assert_close(follow(given), plain, atol=1e-12, rtol=1e-9)


def test_one_rate_is_the_filter() -> None:
    """With a single rate nothing is left to believe but the experts."""
    given = evidence(2, 40, 5)
    found = pace.follow(given, pace.start(2, 1, start(1, 5, CPU)[0]), rates=(0.02,), change=CHANGE)
    expected = filter_chunked(given, start(2, 5, CPU), 0.02)
    torch.testing.assert_close(found[:, :, 0], expected, atol=1e-12, rtol=1e-9)


def test_it_is_bayes_rule_over_rates() -> None:
    """Two tokens by hand: each rate is believed in proportion to how probable it found the tokens."""
    given = torch.tensor([[[0.3, -0.5], [-1.0, 0.4]]], dtype=torch.float64)
    trust, inner = torch.full((2,), 0.5, dtype=torch.float64), torch.full((2, 2), 0.5, dtype=torch.float64)
    for step in given[0]:
        mixed = torch.stack([(1 - rate) * inner[number] + rate / 2 for number, rate in enumerate(RATES)])
        mass = mixed * step.exp()
        trust = ((1 - CHANGE) * trust + CHANGE / 2) * mass.sum(-1)
        trust, inner = trust / trust.sum(), mass / mass.sum(-1, keepdim=True)
    torch.testing.assert_close(follow(given)[0, -1], trust[:, None] * inner, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("cut", [1, 16, 37])
def test_a_text_in_two_windows_is_one_text(cut: int) -> None:
    """Going on from the last belief equals going through the whole text at once."""
    given = evidence(2, 50, 4)
    first = follow(given[:, :cut])
    second = follow(given[:, cut:], first[:, -1])
    torch.testing.assert_close(torch.cat([first, second], 1), follow(given), atol=1e-12, rtol=1e-9)


def test_a_restless_text_is_followed_faster() -> None:
    """After many changes of author the next one is believed sooner than in a text that never changed."""
    calm, restless = torch.zeros(2, 260, 2, dtype=torch.float64)
    calm[:, 0] = 1.0
    for begin in range(0, 260, 20):
        restless[begin : begin + 20, (begin // 20) % 2] = 1.0
    calm[240:] = restless[240:] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    calm[220:240] = restless[220:240] = torch.tensor([1.0, 0.0], dtype=torch.float64)
    believed = follow(torch.stack([calm, restless])).sum(2)[:, 240:250, 1]
    assert bool((believed[1] > believed[0]).all())


def test_extreme_evidence_stays_finite() -> None:
    """Evidence of thousands of nats neither overflows nor loses the normalisation."""
    found = follow(1000 * evidence(2, 200, 6))
    assert bool(torch.isfinite(found).all())
    torch.testing.assert_close(found.sum((2, 3)), torch.ones(2, 200, dtype=torch.float64))


def test_gradients_equal_the_loops() -> None:
    """The evidence gets the same gradient through chunks as through the recursion."""
    first, second = (evidence(2, 37, 3).double().requires_grad_() for _ in range(2))
    weight, begin = evidence(2, 37, 3, seed=1).double()[:, :, None], pace.start(2, 2, start(1, 3, CPU)[0])
    (follow(first) * weight).sum().backward()
    (pace.follow(second, begin, rates=RATES, change=CHANGE, chain=filter_loop) * weight).sum().backward()
    assert first.grad is not None
    assert float(first.grad.abs().max()) > 1e-4
    torch.testing.assert_close(first.grad, second.grad, atol=1e-11, rtol=1e-8)
