import pytest
import torch

from moehub.errors import RouterError
from moehub.experts.features import Recipe, recipe_for, sums
from moehub.experts.statistics import FeatureSums, Statistics
from moehub.router.lda import Lda, LdaEvidence, discriminants
from moehub.router.method import Contributor
from moehub.router.settings import RouterSettings
from moehub.router.window import Window

HIDDEN, VOCABULARY = 16, 40
RECIPE = recipe_for(HIDDEN)
CPU = torch.device("cpu")


def embedding() -> torch.Tensor:
    return torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(3))


def text(low: int, high: int, *, seed: int, tokens: int = 4000) -> torch.Tensor:
    return torch.randint(low, high, (tokens,), generator=torch.Generator().manual_seed(seed))


def summed(low: int, high: int, *, seed: int = 0) -> FeatureSums:
    return sums([text(low, high, seed=seed)], embedding(), RECIPE)


def contributor(name: str, low: int, high: int) -> Contributor:
    nothing = torch.zeros(1, dtype=torch.int64)
    return Contributor(name, Statistics("t", nothing, nothing, features=summed(low, high)), dict)


def test_the_discriminants_are_fishers() -> None:
    """Weights and biases equal a direct computation from the raw features of both classes."""
    parts = {"a": summed(0, 20), "b": summed(20, 40)}
    tables = discriminants(parts, shrinkage=0.01)
    means = {name: one.sum.double() / one.count for name, one in parts.items()}
    within = sum(
        (one.gram.double() / one.count - torch.outer(means[name], means[name]) for name, one in parts.items()),
        torch.zeros(HIDDEN, HIDDEN, dtype=torch.float64),
    ) / len(parts)
    pooled = 0.99 * within + 0.01 * within.diagonal().mean() * torch.eye(HIDDEN, dtype=torch.float64)
    for name, mean in means.items():
        weight = torch.linalg.inv(pooled) @ mean
        torch.testing.assert_close(tables[name]["weight"].double(), weight, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tables[name]["bias"].double(), -0.5 * mean @ weight, atol=1e-5, rtol=1e-5)


def test_text_it_never_saw_goes_to_its_class() -> None:
    """Tokens of one class get more evidence for it, on text that nothing was summed from."""
    settings = RouterSettings(method="lda")
    tables = Lda().solve([contributor("a", 0, 20), contributor("b", 20, 40)], None, settings)
    gate = Lda().load(tables, ["a", "b"], settings)
    assert isinstance(gate, LdaEvidence)
    table = embedding()
    for expected, (low, high) in enumerate([(0, 20), (20, 40)]):
        ids = text(low, high, seed=77, tokens=200)[None]
        window = Window(ids, torch.ones_like(ids, dtype=torch.bool), lambda tokens: table[tokens])
        evidence, _ = gate(window, gate.begin(1, CPU))
        assert float((evidence[0].argmax(-1) == expected).double().mean()) > 0.9


def test_a_text_in_two_windows_has_the_same_evidence() -> None:
    """The running mean is carried from window to window."""
    settings, table = RouterSettings(method="lda"), embedding()
    tables = Lda().solve([contributor("a", 0, 20), contributor("b", 20, 40)], None, settings)
    gate = Lda().load(tables, ["a", "b"], settings)
    ids = text(0, 40, seed=5, tokens=90)[None]

    def window(part: torch.Tensor) -> Window:
        return Window(part, torch.ones_like(part, dtype=torch.bool), lambda tokens: table[tokens])

    whole, _ = gate(window(ids), gate.begin(1, CPU))  # type: ignore[operator]
    first, memory = gate(window(ids[:, :33]), gate.begin(1, CPU))  # type: ignore[operator]
    second, _ = gate(window(ids[:, 33:]), memory)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-5, rtol=1e-5)


def test_sums_of_different_recipes_are_refused() -> None:
    """Features made differently mean different things."""
    other = sums([text(0, 9, seed=1)], embedding(), Recipe(dimensions=HIDDEN, beta=0.5))
    with pytest.raises(RouterError, match="different recipes"):
        discriminants({"a": summed(0, 20), "b": other}, shrinkage=0.01)


def test_missing_sums_are_named_with_the_cure() -> None:
    """Statistics without feature sums say how to get them."""
    nothing = torch.zeros(1, dtype=torch.int64)
    assert "features=true" in str(Lda().lacks(Statistics("t", nothing, nothing)))
    assert Lda().lacks(contributor("a", 0, 20).statistics) is None
