import pytest
import torch

from moehub.router.posterior import CHUNK, filter_chunked, filter_loop
from tests.router.beliefs import start

CPU = torch.device("cpu")
RHO = 0.02


def evidence(batch: int, tokens: int, experts: int, *, spread: float = 4.0, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, tokens, experts, generator=generator) * spread


@pytest.mark.parametrize("experts", [1, 2, 7, 65])
@pytest.mark.parametrize("tokens", [1, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 101])
def test_chunks_equal_the_loop(experts: int, tokens: int) -> None:
    """The chunked filter returns what the recursion returns, to float64 rounding."""
    given, prior = evidence(3, tokens, experts), start(3, experts, CPU)
    torch.testing.assert_close(
        filter_chunked(given, prior, RHO), filter_loop(given, prior, RHO), atol=1e-12, rtol=1e-10
    )


@pytest.mark.parametrize("tokens", [1, CHUNK, 5 * CHUNK + 3])
def test_chunks_equal_the_loop_with_shares(tokens: int) -> None:
    """Where a new author is drawn by shares, chunks and recursion agree, and equal shares are none."""
    given, prior = evidence(3, tokens, 4), start(3, 4, CPU)
    shares = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    loop = filter_loop(given, prior, RHO, shares)
    torch.testing.assert_close(filter_chunked(given, prior, RHO, shares), loop, atol=1e-12, rtol=1e-10)
    assert not torch.allclose(loop, filter_loop(given, prior, RHO), atol=1e-6)
    torch.testing.assert_close(
        filter_loop(given, prior, RHO, torch.full_like(shares, 0.25)), filter_loop(given, prior, RHO)
    )


def test_the_loop_is_bayes_rule() -> None:
    """One step is prior times likelihood, with the prior mixed by the chance of a switch."""
    given, prior = torch.tensor([[[0.5, -1.0, 2.0]]]), torch.tensor([[0.2, 0.3, 0.5]], dtype=torch.float64)
    mixed = (1 - 0.1) * prior + 0.1 / 3
    mass = mixed * given[0, 0].double().exp()
    torch.testing.assert_close(filter_loop(given, prior, 0.1)[:, 0], mass / mass.sum())


@pytest.mark.parametrize("cut", [1, 15, 16, 40])
def test_a_text_in_two_windows_is_one_text(cut: int) -> None:
    """Going on from the last posterior equals going through the whole text at once."""
    given, prior = evidence(2, 57, 5), start(2, 5, CPU)
    whole = filter_chunked(given, prior, RHO)
    first = filter_chunked(given[:, :cut], prior, RHO)
    second = filter_chunked(given[:, cut:], first[:, -1], RHO)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-13, rtol=1e-11)


def test_padding_before_a_text_changes_nothing() -> None:
    """Tokens without evidence leave the uniform start uniform."""
    given = evidence(1, 30, 4)
    padded = torch.cat([torch.zeros(1, 21, 4), given], 1)
    torch.testing.assert_close(
        filter_chunked(padded, start(1, 4, CPU), RHO)[:, 21:],
        filter_chunked(given, start(1, 4, CPU), RHO),
        atol=1e-13,
        rtol=1e-11,
    )


def test_extreme_evidence_stays_finite() -> None:
    """Evidence of thousands of nats neither overflows nor loses the normalisation."""
    posterior = filter_chunked(evidence(2, 200, 9, spread=3000.0), start(2, 9, CPU), 1e-6)
    assert bool(torch.isfinite(posterior).all())
    torch.testing.assert_close(posterior.sum(-1), torch.ones(2, 200, dtype=torch.float64))


def test_the_posterior_follows_a_switch() -> None:
    """After a switch of author the posterior moves to the new one within a few tokens."""
    given = torch.zeros(1, 60, 2)
    given[:, :30, 0] = given[:, 30:, 1] = 1.0
    best = filter_chunked(given, start(1, 2, CPU), RHO).argmax(-1)[0]
    assert best[:30].sum() == 0
    assert bool((best[38:] == 1).all())


def test_gradients_equal_the_loops() -> None:
    """The evidence gets the same gradient through chunks as through the recursion."""
    first, second = (evidence(2, 37, 4).double().requires_grad_() for _ in range(2))
    weight = evidence(2, 37, 4, seed=1).double()
    (filter_chunked(first, start(2, 4, CPU), RHO) * weight).sum().backward()
    (filter_loop(second, start(2, 4, CPU), RHO) * weight).sum().backward()
    assert first.grad is not None
    assert float(first.grad.abs().max()) > 1e-4
    torch.testing.assert_close(first.grad, second.grad, atol=1e-11, rtol=1e-8)
