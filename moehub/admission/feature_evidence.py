"""Step 9: whether sums of features can be those of the counted text; the `lda` gate is made from them.

Shapes: D dimensions of the features, V vocabulary.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from moehub.admission.at_hand import AtHand
from moehub.admission.canary import probe_of
from moehub.admission.check import Fault, NotAtHandError, check
from moehub.admission.policy import Policy
from moehub.admission.sampling import shares_of
from moehub.admission.subject import Subject
from moehub.experts.features import MOST_DIMENSIONS, Recipe, project
from moehub.experts.statistics import FeatureSums

_COUNT = "count the features of the text that it was trained on, as `moehub train-expert --set features=true` does"
_TINY = 1e-12
_ROUNDED = 1e-6
"""Share of the largest variance that may be missing from the smallest: float64 rounds."""


@check(9)
def feature_recipe(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its features were made as this moehub makes them, from all tokens that were counted."""
    found = _features(subject)
    if found is None or subject.statistics is None:
        return
    dimensions = Recipe.parse(found.recipe).dimensions
    if not _fits(found):
        what = f"its features have {len(found.sum)} dimensions and its recipe says {dimensions}"
        yield Fault(f"{what}, expected the same and at most {MOST_DIMENSIONS}", _COUNT)
    tokens = int(subject.statistics.unigrams.sum())
    if found.count < tokens or (found.count > tokens and not subject.statistics.suppressed_below):
        yield Fault(f"its features are sums over {found.count} tokens, its counts over {tokens}", _COUNT)


@check(9)
def feature_variance(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The sums of its features leave a variance that is zero or more in every direction."""
    found = _features(subject)
    if found is None:
        return
    variances = torch.linalg.eigvalsh(_covariance(found))
    if float(variances[0]) < -_ROUNDED * max(float(variances[-1]), 1.0):
        yield Fault(
            f"its features have a variance of {float(variances[0]):.4g} in some direction: their mean was moved", _COUNT
        )


@check(9)
def feature_spread(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its features vary about as much as the others'.

    Raises:
        NotAtHandError: nobody's features of the same recipe are at hand.
    """
    found = _features(subject)
    if found is None:
        return
    beside = [*at_hand.others.values(), *([] if at_hand.null is None else [at_hand.null])]
    traces = [
        spread(one.features) for one in beside if one.features is not None and one.features.recipe == found.recipe
    ]
    if not traces:
        raise NotAtHandError("no expert with features of the same recipe is at hand: name a MoE with --beside")
    usual, mine = float(torch.tensor(traces).median()), spread(found)
    if not usual / policy.most_feature_spread <= mine <= usual * policy.most_feature_spread:
        yield Fault(f"the variance of its features is {mine:.4g}, the others' is about {usual:.4g}", _COUNT)


@check(9)
def feature_mean(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The mean of its features is the one that its counts imply, under the base's embeddings.

    Raises:
        NotAtHandError: its base is not at hand with its weights.
    """
    found = _features(subject)
    if found is None or subject.statistics is None or not _fits(found):
        return
    embedding = probe_of(subject, at_hand).model.get_input_embeddings().weight
    moved = shift(subject.statistics.unigrams, found, embedding)
    if not moved <= policy.most_feature_shift:
        yield Fault(
            f"the mean of its features lies {moved:.2f} standard deviations from the one that its counts imply, "
            f"expected at most {policy.most_feature_shift:g}",
            _COUNT,
        )


def _features(subject: Subject) -> FeatureSums | None:
    found = None if subject.statistics is None else subject.statistics.features
    return found if found is not None and found.count else None


def _fits(sums: FeatureSums) -> bool:
    """Return whether the recipe is of these dimensions, and of no more than anybody would want to compute."""
    return Recipe.parse(sums.recipe).dimensions == len(sums.sum) <= MOST_DIMENSIONS


def _covariance(sums: FeatureSums) -> Tensor:
    mean = sums.sum.double() / sums.count
    return sums.gram.double() / sums.count - torch.outer(mean, mean)


def spread(sums: FeatureSums) -> float:
    """Return the variance of the features in all directions together."""
    return float(_covariance(sums).diagonal().sum())


def shift(unigrams: Tensor, sums: FeatureSums, embedding: Tensor) -> float:
    """Return how far the mean of features lies from that of counted tokens, in standard deviations of the features.

    Smoothing keeps a mean, but for the first tokens of each document.

    Args:
        unigrams: int64 [V].
        sums: of features of the text in which those were counted.
        embedding: the base's, [V or more, H].
    """
    used, recipe = unigrams[: len(embedding)].nonzero().flatten(), Recipe.parse(sums.recipe)
    features = project(embedding.detach()[used], recipe).double()
    expected = recipe.scale * (shares_of(unigrams[used])[:, None] * features).sum(0)
    return float((sums.sum.double() / sums.count - expected).norm()) / max(spread(sums), _TINY) ** 0.5
