"""Evidence from hidden states: linear functions of smoothed embeddings, made from sums and filtered.

From each contributor's n, s = Σ x and G = Σ x xᵀ over the router's own features (`moehub.experts.features`), with
μ_e = s_e/n_e:

* `lda`: linear discriminants with one covariance for all (Hastie, Tibshirani and Friedman, "The Elements of
  Statistical Learning", section 4.3), as `moehub.router.lda` makes them.
* `ridge`: least squares to the indicator of the owner (the same, section 4.2, with the penalty of 3.4.1), each
  contributor counted alike: (mean_e G_e/n_e + λ·I, with an intercept) W = mean over e of μ_e at the owner's column.
  It needs nothing but the same sums (Zhuang et al. 2024, "AFL: A Single-Round Analytic Approach for Federated
  Learning").

Shapes: B batch, T tokens, D features, C columns (nobody's last, from generic text).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality.method import Batch, Method, Routed
from benchmarks.quality.sticky import Sticky
from benchmarks.quality.tuning import Objective, choose, grid
from benchmarks.quality.world import World
from moehub.experts import features
from moehub.experts.features import Recipe
from moehub.experts.statistics import FeatureSums
from moehub.router.lda import discriminants
from moehub.router.settings import RouterSettings

NOBODY = "null"
_GENERIC_TOKENS = 300_000
_PENALTY = 1e-3
_RHOS = (0.01, 0.05)


def lda(world: World) -> Routed:
    """Return the posterior of linear discriminants."""
    tables = discriminants(summed(world), RouterSettings().lda_shrinkage)
    columns = [tables[name] for name in (*world.names, NOBODY)]
    weight, bias = (torch.stack([one[part] for one in columns]) for part in ("weight", "bias"))
    return _filtered(world, weight, bias, kappas=(0.02, 0.05, 0.1, 0.2))


def ridge(world: World) -> Routed:
    """Return the posterior of linear regressions."""
    sums = summed(world)
    weight, bias = regression([sums[name] for name in (*world.names, NOBODY)], _PENALTY)
    return _filtered(world, weight, bias, kappas=(0.5, 1.0, 2.0, 4.0))


def summed(world: World) -> Mapping[str, FeatureSums]:
    """Return everybody's sums, those of generic text as nobody's."""
    embedding = _embedding(world)
    recipe = features.recipe_for(embedding.shape[1])
    found = {name: features.sums(world.documents(name), embedding, recipe) for name in world.names}
    return found | {NOBODY: features.sums(_first(world.generic_documents, _GENERIC_TOKENS), embedding, recipe)}


def regression(sums: list[FeatureSums], penalty: float) -> tuple[Tensor, Tensor]:
    """Return the weights [C, D] and intercepts [C] that regress each owner's indicator on the features."""
    means = torch.stack([one.sum.double() / one.count for one in sums])
    second = torch.stack([one.gram.double() / one.count for one in sums]).mean(0)
    size = len(second)
    system = torch.empty(size + 1, size + 1, dtype=torch.float64)
    system[:size, :size] = second + penalty * second.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    system[:size, size] = system[size, :size] = means.mean(0)
    system[size, size] = 1
    wanted = torch.cat([means.T, torch.ones(1, len(means), dtype=torch.float64)]) / len(means)
    solved = torch.linalg.solve(system, wanted)
    return solved[:size].T.float(), solved[size].float()


@dataclass(frozen=True)
class Linear:
    """A linear function of smoothed embeddings as evidence."""

    embedding: Tensor
    recipe: Recipe
    weight: Tensor
    bias: Tensor

    def __call__(self, batch: Batch) -> Tensor:
        """Return the evidence of each token, [B, T, C]."""
        x = features.project(self.embedding[batch.ids], self.recipe)
        empty = x.new_zeros(len(x), self.recipe.dimensions), x.new_zeros(len(x))
        smoothed, _, _ = features.ema(x, batch.mask, *empty, self.recipe)
        return smoothed * self.recipe.scale @ self.weight.T + self.bias


def _filtered(world: World, weight: Tensor, bias: Tensor, *, kappas: tuple[float, ...]) -> Routed:
    embedding = _embedding(world)
    evidence = Linear(embedding, features.recipe_for(embedding.shape[1]), weight, bias)
    dimensions = weight.shape[1]
    return choose(
        Objective.of(world),
        grid(kappa=kappas, rho=_RHOS),
        lambda setting: Routed(world, Sticky(evidence, **setting), 8 * (dimensions + dimensions**2)),
    )


def _embedding(world: World) -> Tensor:
    weight: Tensor = world.moe.base.get_input_embeddings().weight
    return weight.detach()


def _first(documents: list[Tensor], tokens: int) -> Iterator[Tensor]:
    for document in documents:
        if tokens <= 0:
            return
        yield document
        tokens -= len(document)


METHODS = (Method("lda", "statistics", False, lda), Method("ridge", "statistics", False, ridge))
