"""Hidden-state evidence: linear discriminant analysis on smoothed embeddings.

From each contributor's n, s = Σ x, G = Σ x xᵀ (integers, see `moehub.experts.features`):

    μ_e = s_e/n_e,   C = mean_e(G_e/n_e − μ_e μ_eᵀ),   C ← (1−ε)·C + ε·mean(diag C)·I,
    ℓ_t(e) = w_e·x_t + b_e   with   w_e = C⁻¹ μ_e,   b_e = −½ μ_eᵀ C⁻¹ μ_e

(Fisher 1936; Hastie, Tibshirani and Friedman, "The Elements of Statistical Learning", section 4.3, with equal
priors: each contributor counts once, however much text it has). Sums are taken in the order of names, so the
result does not depend on the order of the experts; but C is everybody's, so a new expert changes all columns.

Shapes: B batch, T tokens, D feature dimensions, E columns of the gate (the null expert's last).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from moehub.errors import RouterError
from moehub.experts.features import Recipe, ema, project
from moehub.experts.statistics import FeatureSums, Statistics
from moehub.router.method import NULL, Contributor, Tables
from moehub.router.settings import RouterSettings
from moehub.router.window import Memory, Window


class Lda:
    """Linear discriminants of hidden states."""

    name = "lda"
    kind: Literal["evidence", "layer"] = "evidence"
    local = False

    def lacks(self, statistics: Statistics | None) -> str | None:
        """Return what is missing: the feature sums."""
        if statistics is None or statistics.features is None or not statistics.features.count:
            return "it has no feature sums: train it with --set features=true, or leave lda out of --router"
        return None

    def solve(
        self, contributors: Sequence[Contributor], null: Statistics | None, settings: RouterSettings
    ) -> dict[str, Tables]:
        """Return each contributor's discriminant.

        Raises:
            RouterError: the feature sums were made by different recipes.
        """
        owners = {one.name: one.statistics for one in contributors} | {NULL: null}
        sums = {name: owners[name].features for name in sorted(owners) if owners[name] is not None}  # type: ignore[union-attr]
        return discriminants({name: one for name, one in sums.items() if one is not None}, settings.lda_shrinkage)

    def load(self, tables: Mapping[str, Tables], names: Sequence[str], settings: RouterSettings) -> nn.Module:
        """Return the evaluation of the discriminants."""
        recipe = Recipe.parse(bytes(tables[names[0]]["recipe"].tolist()).decode())
        return LdaEvidence(
            torch.stack([tables[name]["weight"] for name in names]),
            torch.stack([tables[name]["bias"] for name in names]),
            recipe,
            settings.lda_weight,
        )


class LdaEvidence(nn.Module):
    """One small linear on the smoothed features of each token."""

    numbers: ClassVar = ("lda_weight",)
    """Settings that it can be tuned by."""

    def __init__(self, weight: Tensor, bias: Tensor, recipe: Recipe, strength: float) -> None:
        """Keep the discriminants: weight [E, D], bias [E]."""
        super().__init__()
        self.recipe, self.strength = recipe, strength
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    def act(self, settings: RouterSettings) -> None:
        """Weigh the evidence as other settings say."""
        self.strength = settings.lda_weight

    def begin(self, batch: int, device: torch.device) -> Memory:
        """Return the memory before the first token: the running mean [B, D] and the tokens seen [B]."""
        return (torch.zeros(batch, self.recipe.dimensions, device=device), torch.zeros(batch, device=device))

    def forward(self, window: Window, memory: Memory) -> tuple[Tensor, Memory]:
        """Return the tempered log evidence of each token, float32 [B, T, E], and the memory after the last."""
        carry, seen = memory
        features = project(window.embed(window.ids).to(self.weight.dtype), self.recipe)
        smoothed, carry, seen = ema(features, window.mask, carry, seen, self.recipe)
        evidence = (smoothed * self.recipe.scale) @ self.weight.T + self.bias
        return self.strength * evidence * window.mask[..., None], (carry, seen)


def discriminants(sums: Mapping[str, FeatureSums], shrinkage: float) -> dict[str, Tables]:
    """Return weight [D], bias and recipe for each owner of feature sums, in float64 until the end.

    Raises:
        RouterError: the sums were made by different recipes.
    """
    recipes = {one.recipe for one in sums.values()}
    if len(recipes) > 1:
        raise RouterError(
            f"the feature sums were made by different recipes ({', '.join(sorted(recipes))}): train again"
        )
    recipe = torch.tensor(list(recipes.pop().encode()), dtype=torch.uint8)
    means = {name: one.sum.double() / one.count for name, one in sums.items()}
    within = [one.gram.double() / one.count - torch.outer(means[name], means[name]) for name, one in sums.items()]
    pooled = torch.stack(within).mean(0)
    ridge = shrinkage * pooled.diagonal().mean().clamp_min(1e-12) * torch.eye(len(pooled), dtype=torch.float64)
    pooled = (1 - shrinkage) * pooled + ridge
    tables = {}
    for name, mean in means.items():
        weight = torch.linalg.solve(pooled, mean)
        # Copies of the recipe: safetensors refuses tensors that share their memory.
        tables[name] = {"weight": weight.float(), "bias": (-0.5 * weight @ mean).float(), "recipe": recipe.clone()}
    return tables
