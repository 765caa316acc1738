import math

import pytest
import torch

from moehub.experts import noise


@pytest.mark.parametrize("sigma", [0.3, 1.0, 7.5, 40.0])
def test_noise_has_the_moments_of_its_distribution(sigma: float) -> None:
    """Mean zero, the variance and the fourth moment of the discrete Gaussian, within five standard errors."""
    size = 200_000
    found = noise.drawn(size, sigma).double()
    k = torch.arange(-math.ceil(15 * sigma), math.ceil(15 * sigma) + 1).double()
    chance = torch.exp(-(k**2) / (2 * sigma**2))
    chance /= chance.sum()
    for power in (1, 2, 3, 4):
        exact, spread = (float((chance * k ** (power * times)).sum()) for times in (1, 2))
        error = math.sqrt((spread - exact**2) / size)
        assert abs(float((found**power).mean()) - exact) < 5 * error


def test_cumulative_probabilities_are_those_of_the_formula() -> None:
    """In 128 bits, from the least to the last but one, symmetric, and all that is left goes to the last."""
    bounds = noise._cumulative(2.0)
    weights = [math.exp(-(k**2) / 8) for k in range(-30, 31)]
    assert len(bounds) == len(weights) - 1
    for place in (25, 30, 35):
        assert bounds[place] / 2**128 == pytest.approx(sum(weights[: place + 1]) / sum(weights), rel=1e-12)
    assert bounds == sorted(bounds)
    assert all(abs(low + high - 2**128) <= 1 for low, high in zip(bounds, reversed(bounds), strict=True))


@pytest.mark.parametrize(("first", "second", "expected"), [(0, 0, -2), (1, 5, -1), (1, 4, -2), (2**63, 0, 0)])
def test_all_128_bits_decide(first: int, second: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first 64 bits of a bound and of the number are the same, the others are looked at."""
    bounds = [(1 << 64) | 5, 2 << 64, 3 << 126, 2**128 - 1]
    monkeypatch.setattr(noise, "_cumulative", lambda _: bounds)
    monkeypatch.setattr("secrets.token_bytes", lambda size: first.to_bytes(8, "little") * (size // 8))
    monkeypatch.setattr("secrets.randbits", lambda _: second)
    assert noise.drawn(3, 1.0).tolist() == [expected] * 3


def test_noise_cannot_be_drawn_again() -> None:
    """A training's seed decides nothing about it."""
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(noise.drawn(100, 10.0).tolist())
    assert found[0] != found[1]
