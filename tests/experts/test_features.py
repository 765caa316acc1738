import hashlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moehub.errors import ExpertError
from moehub.experts import features
from moehub.experts.features import Recipe


def _state(batch: int, dimensions: int, *, seen: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(batch, dimensions, generator=generator) * (seen > 0), torch.full((batch,), float(seen))


@given(
    dimensions=st.integers(1, 4096),
    beta=st.floats(0.01, 0.999),
    scale=st.floats(0.001, 1e6),
    seed=st.integers(0, 2**32),
)
def test_recipe_is_written_and_read_back(dimensions: int, beta: float, scale: float, seed: int) -> None:
    """The one line in the file says all that is needed to make the same features."""
    recipe = Recipe(dimensions, beta, scale, seed)
    assert Recipe.parse(recipe.name()) == recipe


def test_recipe_of_another_kind_is_refused() -> None:
    """Features that this version cannot make are not guessed at."""
    with pytest.raises(ExpertError, match="'trunk-ema p=8' is no recipe"):
        Recipe.parse("trunk-ema p=8")


def test_name_is_part_of_the_format() -> None:
    """The line that stands in published files."""
    assert Recipe(256).name() == "embedding-ema p=256 beta=0.9 scale=32.0 seed=0 round=int8"


@pytest.mark.parametrize(("hidden", "expected"), [(32, 32), (256, 256), (4096, 256)])
def test_recipe_has_at_most_256_dimensions(hidden: int, expected: int) -> None:
    """Small bases keep their own size."""
    assert features.recipe_for(hidden).dimensions == expected


def test_projection_follows_its_specification() -> None:
    """Signs over the root of H, bit by bit from SHAKE-256, least significant bit first, row by row."""
    recipe = Recipe(3, seed=7)
    digest = hashlib.shake_256(b"moehub features 7 5 3").digest(2)
    bits = [(digest[index // 8] >> (index % 8)) & 1 for index in range(15)]
    expected = torch.tensor([1.0 if bit else -1.0 for bit in bits]).view(5, 3) / 5**0.5
    torch.testing.assert_close(features.projection(5, recipe, torch.device("cpu")), expected)


def test_projected_features_have_unit_size_whatever_the_input() -> None:
    """Scaling a hidden state changes nothing; each feature's variance is about one."""
    hidden = torch.randn(500, 1024, generator=torch.Generator().manual_seed(0))
    recipe = features.recipe_for(1024)
    projected = features.project(hidden, recipe)
    torch.testing.assert_close(features.project(hidden * 50, recipe), projected)
    assert (projected.shape, projected.dtype) == ((500, 256), torch.float32)
    assert projected.var().item() == pytest.approx(1, abs=0.05)


def test_small_hidden_states_are_only_normalised() -> None:
    """Where no dimension is to be saved, none is mixed."""
    hidden = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    expected = hidden / hidden.square().mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(features.project(hidden.double(), Recipe(6)), expected)


def test_projection_made_in_inference_mode_serves_training() -> None:
    """It is kept, so it must not be a tensor that autograd refuses."""
    recipe = Recipe(4, seed=99)
    with torch.inference_mode():
        features.project(torch.randn(2, 8), recipe)
    hidden = torch.randn(2, 8, requires_grad=True)
    features.project(hidden, recipe).sum().backward()
    assert hidden.grad is not None


@settings(deadline=None, max_examples=30)
@given(
    length=st.integers(0, 200),
    seen=st.sampled_from([0, 1, 100]),
    density=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 99),
)
def test_ema_equals_its_plain_twin(length: int, seen: int, density: float, seed: int) -> None:
    """In chunks or token by token, with padding anywhere and with any state before: the same."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, length, 4, generator=generator)
    mask = torch.rand(3, length, generator=generator) < density
    carry, before = _state(3, 4, seen=seen)
    for ours, plain in zip(
        features.ema(x, mask, carry, before, Recipe(4)),
        features.ema_reference(x, mask, carry, before, Recipe(4)),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, atol=2e-5, rtol=1e-4)


def test_ema_is_bias_corrected() -> None:
    """The mean of a constant is that constant from the first token on."""
    x = torch.ones(1, 100, 2) * 3
    means, _, seen = features.ema(x, torch.ones(1, 100), *_state(1, 2), Recipe(2))
    torch.testing.assert_close(means, x)
    assert seen.tolist() == [100]


def test_ema_goes_on_where_it_stopped() -> None:
    """Prefill and then one token at a time gives the means of one pass."""
    x = torch.randn(2, 90, 3, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 90)
    whole, _, _ = features.ema(x, mask, *_state(2, 3), Recipe(3))
    means, carry, seen = features.ema(x[:, :80], mask[:, :80], *_state(2, 3), Recipe(3))
    parts = [means]
    for step in range(80, 90):
        means, carry, seen = features.ema(x[:, step : step + 1], mask[:, :1], carry, seen, Recipe(3))
        parts.append(means)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-5)


def test_left_padding_changes_nothing() -> None:
    """The means of a padded text are those of the text alone."""
    x = torch.randn(1, 70, 3, generator=torch.Generator().manual_seed(1))
    alone, _, _ = features.ema(x, torch.ones(1, 70), *_state(1, 3), Recipe(3))
    padded = torch.cat([torch.full((1, 9, 3), 7.0), x], 1)
    mask = torch.cat([torch.zeros(1, 9), torch.ones(1, 70)], 1)
    means, _, seen = features.ema(padded, mask, *_state(1, 3), Recipe(3))
    torch.testing.assert_close(means[:, 9:], alone, atol=1e-5, rtol=1e-5)
    assert (means[:, :9].abs().max().item(), seen.item()) == (0, 70)


def test_quantise_rounds_and_limits() -> None:
    """Values become int8 at the recipe's scale."""
    values = torch.tensor([0.0, 0.24, -0.26, 100.0, -100.0])
    assert features.quantise(values, Recipe(1, scale=10.0)).tolist() == [0, 2, -3, 127, -127]


def test_sums_are_those_of_the_quantised_features_document_by_document() -> None:
    """n, Σx and Σxxᵀ are exact integers, and no mean runs from one document into the next."""
    embedding = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    documents = [torch.randint(30, (length,), generator=generator) for length in (1, 5, 1500, 0)]
    recipe = Recipe(8)
    count, total, gram = 0, torch.zeros(8, dtype=torch.int64), torch.zeros(8, 8, dtype=torch.int64)
    table = features.project(embedding, recipe)
    for ids in documents:
        means, _, _ = features.ema(table[ids][None], torch.ones(1, len(ids)), *_state(1, 8), recipe)
        x = features.quantise(means[0], recipe).long()
        count, total, gram = count + len(ids), total + x.sum(0), gram + x.T @ x
    found = features.sums(documents, embedding, recipe)
    assert (found.recipe, found.count) == (recipe.name(), count)
    assert torch.equal(found.sum, total)
    assert torch.equal(found.gram, gram)


def test_sums_stay_exact_beyond_what_float32_can_hold() -> None:
    """Saturated features of a long document: 127² · 4099 is odd and above 2^24."""
    recipe = Recipe(4, scale=1e6)
    found = features.sums([torch.zeros(4099, dtype=torch.int64)], torch.tensor([[1.0, 2.0, -3.0, 4.0]]), recipe)
    signs = torch.tensor([1, 1, -1, 1])
    assert torch.equal(found.gram, 127 * 127 * 4099 * torch.outer(signs, signs))
    assert torch.equal(found.sum, 127 * 4099 * signs)


def test_sums_do_not_depend_on_the_order_of_documents() -> None:
    """Integers add up the same in any order."""
    embedding = torch.randn(30, 12, generator=torch.Generator().manual_seed(0))
    documents = [torch.arange(20), torch.arange(30), torch.arange(7)]
    first = features.sums(documents, embedding, Recipe(8))
    second = features.sums(documents[::-1], embedding, Recipe(8))
    assert torch.equal(first.sum, second.sum)
    assert torch.equal(first.gram, second.gram)
