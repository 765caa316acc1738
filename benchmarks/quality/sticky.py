"""The filter that rivals of the gate share: evidence of each token → weights of the experts.

A hidden Markov chain over owners that stays with chance 1−ρ and else draws a new one at random, whose evidence is
tempered by κ (Rabiner 1989, "A tutorial on hidden Markov models", section III.A). It stands here apart from
`moehub.router`, so that rivals stay what they are while the product's own filter changes.

Shapes: B batch, T tokens, E columns (nobody's last).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.quality.method import Batch, top

TOP_K = 2
THRESHOLD = 0.05


@dataclass(frozen=True)
class Sticky:
    """Evidence, filtered, and the largest of the posterior as weights."""

    evidence: Callable[[Batch], Tensor]
    """Log likelihood of each token for each column, [B, T, E]."""
    kappa: float
    rho: float
    top_k: int = TOP_K
    threshold: float = THRESHOLD

    def __call__(self, batch: Batch) -> Tensor:
        """Return weights [B, T, E]."""
        posterior = filtered(self.kappa * self.evidence(batch).double(), self.rho)
        return top(posterior, self.top_k, threshold=self.threshold)


def filtered(evidence: Tensor, rho: float) -> Tensor:
    """Return p_t ∝ [(1−ρ)·p_{t−1} + ρ/E] · exp(ℓ_t) from log evidence ℓ [B, T, E], beginning with 1/E."""
    likelihood = (evidence - evidence.amax(-1, keepdim=True)).exp()
    columns = evidence.shape[-1]
    posterior = torch.full_like(likelihood[:, 0], 1 / columns)
    steps = []
    for step in likelihood.unbind(1):
        mass = ((1 - rho) * posterior + rho / columns) * step
        posterior = mass / mass.sum(-1, keepdim=True)
        steps.append(posterior)
    return torch.stack(steps, 1)
