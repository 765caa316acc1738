import math

import pytest
import torch
from torch import Tensor

from benchmarks.privacy import attack
from benchmarks.privacy.attack import Victim, area
from benchmarks.privacy.likelihood import Published
from benchmarks.privacy.protection import exact, protections


def poisson(mean: float, k: int) -> float:
    """Return the chance of k."""
    return math.exp(-mean) * mean**k / math.factorial(k)


def seen(count: int, *, sigma: float = 0.0, hides: bool = False) -> Published:
    """Return one bucket that holds two in expectation, beside one with four."""
    return Published(torch.tensor([count, 4]), torch.tensor([2.0, 2.0], dtype=torch.float64), sigma, hides)


def ratio(found: Published, added: int) -> float:
    """Return the log ratio of the first bucket."""
    return float(found.ratio(torch.tensor([0]), torch.tensor([added])))


def test_likelihood_ratio_of_exact_counts() -> None:
    """That of two Poisson numbers; a bucket that holds less than was added rules it out."""
    assert ratio(seen(5), 2) == pytest.approx(math.log(poisson(2, 3) / poisson(2, 5)))
    assert ratio(seen(1), 2) == -30


def test_likelihood_ratio_of_suppressed_counts() -> None:
    """What is not published is below the least that is: four here."""
    within, below = sum(poisson(2, k) for k in range(2)), sum(poisson(2, k) for k in range(4))
    assert ratio(seen(0, hides=True), 2) == pytest.approx(math.log(within / below))
    assert ratio(seen(0, hides=True), 4) == -30


def test_likelihood_ratio_of_counts_with_noise() -> None:
    """Normal, with the variance of both; nothing is ruled out."""
    deviation = math.sqrt(2 + 9)
    excess = ((7 - 2) ** 2 - (7 - 2 - 3) ** 2) / (2 * deviation**2)
    assert ratio(seen(7, sigma=3.0, hides=True), 3) == pytest.approx(excess)
    assert -1 < ratio(seen(0, sigma=3.0, hides=True), 3) < 0


def test_area_under_the_curve() -> None:
    """One where all members are above all others, a half where they are the same."""
    low, high = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    assert (area(high, low), area(low, high), area(low, low)) == (1.0, 0.0, 0.5)


class Bytes:
    """A tokenizer of single bytes."""

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": list(text.encode())}

    def __len__(self) -> int:
        return 256


def documents() -> list[Tensor]:
    """Return random letters."""
    return list(torch.randint(97, 123, (60, 120), generator=torch.Generator().manual_seed(0)))


def test_exact_counts_give_both_away_and_noise_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number that stands ten times in a text without digits is read; documents that were counted are found."""
    monkeypatch.setattr(attack, "_TRIALS", 3)
    victim = Victim("letters", Bytes(), documents(), seed=0)
    ways = protections()
    open_, noisy = victim.attacked(ways["nothing suppressed"]), victim.attacked(ways["noise, ε = 1"])
    assert open_.membership > 0.95
    assert open_.recovered[10] > 0.5
    assert abs(noisy.membership - 0.5) < 0.3
    assert noisy.recovered[10] < 0.5


def test_every_protection_publishes_less() -> None:
    """Of exact counts, suppressed ones are fewer; noise is stated."""
    text, whole = documents(), exact(documents(), 256)
    for name, publish in protections().items():
        found = publish(text, 256)
        assert (found.private is not None) == name.startswith("noise")
        if found.private is None:
            assert int(found.pairs.sum()) <= int(whole.pairs.sum())
