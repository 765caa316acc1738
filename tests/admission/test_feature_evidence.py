import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moehub.admission.at_hand import AtHand
from moehub.admission.feature_evidence import shift, spread
from moehub.admission.gate import examine
from moehub.admission.probe import opened
from moehub.admission.registry import registered
from moehub.card import STATISTICS_FILE, read_card
from moehub.experts import features
from moehub.experts.folder import seal
from moehub.experts.statistics import FeatureSums, Statistics, count
from tests.attacks.honest import another, everything_at_hand, honest
from tests.world import World

CHECKS = tuple(one for one in registered() if one.code.startswith("feature-") and one.step == 9)


@pytest.fixture(scope="module")
def everything(world: World) -> AtHand:
    """All that a careful hub has at hand."""
    return everything_at_hand(world)


def sums(folder: Path) -> FeatureSums:
    found = Statistics.load(folder / STATISTICS_FILE).features
    assert found is not None
    return found


def codes(world: World, folder: Path, change: Callable[[FeatureSums], FeatureSums], at_hand: AtHand) -> set[str]:
    """Return why the good expert with these sums is refused."""
    shutil.copytree(honest(world), folder)
    changed = dataclasses.replace(Statistics.load(folder / STATISTICS_FILE), features=change(sums(folder)))
    changed.save(folder / STATISTICS_FILE)
    seal(folder, read_card(folder))
    return {refusal.code for refusal in examine(folder, at_hand, checks=CHECKS).refusals}


def test_true_sums_are_admitted(world: World, everything: AtHand) -> None:
    """Experts of two domains pass all checks of their features, beside each other and the null."""
    for folder in (honest(world), another(world)):
        verdict = examine(folder, everything, checks=CHECKS)
        assert (verdict.refusals, verdict.skipped) == ((), ())


def test_the_mean_of_features_is_that_of_the_tokens(everything: AtHand) -> None:
    """Smoothing keeps a mean: in long documents the features' is that of the tokens, for drawn text of any kind."""
    assert everything.base is not None
    embedding = opened(everything.base).model.get_input_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    text = [torch.multinomial(1 / torch.arange(1.0, 301), 3000, replacement=True, generator=generator)]
    counted = count(text, tokenizer="t", vocabulary=len(embedding), pair_bits=8)
    found = features.sums(text, embedding, features.recipe_for(embedding.shape[1]))
    assert shift(counted.unigrams, found, embedding) < 0.1
    assert shift(counted.unigrams.flip(0), found, embedding) > 1.0


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_mean_that_was_moved_a_little_is_no_attack(
    world: World, everything: AtHand, tmp_path: Path, factor: float
) -> None:
    """The checks leave room for text whose documents are short."""

    def moved(one: FeatureSums) -> FeatureSums:
        mean = one.sum.double() / one.count
        gram = one.gram.double() + (factor**2 - 1) * one.count * torch.outer(mean, mean)
        return dataclasses.replace(one, sum=(one.sum * factor).long(), gram=gram.round().long())

    assert codes(world, tmp_path / "expert", moved, everything) == set()


def test_any_mean_beyond_its_squares_is_refused(world: World, tmp_path: Path) -> None:
    """Σxxᵀ ≥ ΣxΣxᵀ/n holds for whatever was summed: no base is needed to see that a mean was moved alone."""

    def alone(one: FeatureSums) -> FeatureSums:
        return dataclasses.replace(one, sum=one.sum * 2)

    assert codes(world, tmp_path / "expert", alone, AtHand()) == {"feature-variance"}


def test_a_recipe_that_would_cost_a_lot_is_refused_before_it_is_followed(
    world: World, everything: AtHand, tmp_path: Path
) -> None:
    """A projection to a billion dimensions is refused in no time, and one that nobody knows too."""

    def huge(one: FeatureSums) -> FeatureSums:
        return dataclasses.replace(one, recipe="embedding-ema p=1000000000 beta=0.9 scale=32.0 seed=0 round=int8")

    assert codes(world, tmp_path / "huge", huge, everything) == {"feature-recipe"}
    unknown = codes(world, tmp_path / "unknown", lambda one: dataclasses.replace(one, recipe="mine"), everything)
    assert "feature-recipe" in unknown


def test_spread_is_the_variance_in_all_directions() -> None:
    """For features whose coordinates are independent it is the sum of their variances."""
    x = torch.tensor([[1, 0], [-1, 4], [1, 0], [-1, 4]])
    found = FeatureSums("r", 4, x.sum(0), x.T @ x)
    assert spread(found) == pytest.approx(1.0 + 4.0)


def test_experts_without_features_are_admitted(world: World, everything: AtHand, tmp_path: Path) -> None:
    """Features are for those who want them."""
    folder = Path(shutil.copytree(honest(world), tmp_path / "expert"))
    bare = dataclasses.replace(Statistics.load(folder / STATISTICS_FILE), features=None)
    bare.save(folder / STATISTICS_FILE)
    seal(folder, read_card(folder))
    verdict = examine(folder, everything, checks=CHECKS)
    assert (verdict.refusals, verdict.skipped) == ((), ())
