"""Step 9: sums of features that no text has: the `lda` gate would be made from them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from moehub.admission.at_hand import AtHand
from moehub.experts.statistics import FeatureSums, Statistics
from tests.attacks import Attack
from tests.attacks.honest import everything_at_hand
from tests.attacks.routing import counts_at_hand, nothing_at_hand, with_statistics
from tests.world import World

Change = Callable[[FeatureSums], FeatureSums]


def with_features(change: Change) -> Callable[[Path, World], Path]:
    """Return what makes an expert whose sums of features are others."""

    def changed(found: Statistics, _: World) -> Statistics:
        if found.features is None:
            raise ValueError("the honest expert has no features")
        return replace(found, features=change(found.features))

    return with_statistics(changed)


def embeddings_at_hand(world: World) -> AtHand:
    """Return what is at hand where there is a base, and nobody's counts."""
    found = everything_at_hand(world)
    return AtHand(pin=found.pin, base_config=found.base_config, base=found.base)


def _moved(sums: FeatureSums, factor: float) -> FeatureSums:
    """Move the mean of the features and keep their covariance."""
    mean = sums.sum.double() / sums.count
    covariance = sums.gram.double() / sums.count - torch.outer(mean, mean)
    return _sums(sums, factor * mean, covariance)


def _sums(sums: FeatureSums, mean: Tensor, covariance: Tensor) -> FeatureSums:
    """Return sums of features with this mean and covariance, and a little more variance for what is rounded."""
    gram = sums.count * (covariance + torch.outer(mean, mean) + 1e-2 * torch.eye(len(mean)))
    return replace(sums, sum=(sums.count * mean).round().long(), gram=gram.round().long())


def _spread(sums: FeatureSums, factor: float) -> FeatureSums:
    mean = sums.sum.double() / sums.count
    return _sums(sums, mean, factor * (sums.gram.double() / sums.count - torch.outer(mean, mean)))


def _attack(name: str, code: str, change: Change, at_hand: Callable[[World], AtHand] = nothing_at_hand) -> Attack:
    return Attack(name, code, with_features(change), at_hand)


def _half(sums: FeatureSums) -> FeatureSums:
    return replace(sums, count=sums.count // 2, sum=sums.sum // 2, gram=sums.gram // 2)


ATTACKS = [
    _attack("the mean three times as far out", "feature-variance", lambda sums: replace(sums, sum=sums.sum * 3)),
    _attack("features of no variance", "feature-variance", lambda sums: replace(sums, gram=sums.gram // 100)),
    _attack("the mean moved with its variance", "feature-mean", lambda sums: _moved(sums, -3.0), embeddings_at_hand),
    _attack("features that hardly vary", "feature-spread", lambda sums: _spread(sums, 0.02), counts_at_hand),
    _attack("features that vary too much", "feature-spread", lambda sums: _spread(sums, 10.0), counts_at_hand),
    _attack("features of half the tokens", "feature-recipe", _half),
    _attack(
        "features by a recipe of its own",
        "feature-recipe",
        lambda sums: replace(sums, recipe=sums.recipe.replace("p=", "p=1")),
    ),
]
