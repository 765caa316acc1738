"""How restless is this text? The filter at several switching rates at once, each believed as far as it foretold.

A text of one author and one that changes every few lines want different ρ, and nobody says which it is. So the
chain of `moehub.router.posterior` runs once for each rate, and over the rates runs the same chain again, whose
evidence is how probable each rate's filter found the token:

    z_t(m) = Σ_e [(1−ρ_m)·p_{t−1}(e|m) + ρ_m·π(e)] · exp ℓ_t(e),   u_t ∝ [(1−σ)·u_{t−1} + σ/M] · z_t,
    p_t(e) = Σ_m u_t(m)·p_t(e|m)

(Monteleoni and Jaakkola 2003, "Online Learning of Non-stationary Sequences", their learn-α, with a chance σ that
the text changes its pace, as in Herbster and Warmuth 1998, "Tracking the Best Expert").

Shapes: B batch, T tokens, M rates, E experts (the null expert among them).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from moehub.router import posterior

Filter = Callable[[Tensor, Tensor, float | Tensor, Tensor | None], Tensor]


def start(batch: int, rates: int, shares: Tensor) -> Tensor:
    """Return the belief before the first token, float64 [B, M, E]: every rate alike, experts by their shares [E]."""
    return (shares.double() / rates).expand(batch, rates, -1)


def follow(
    evidence: Tensor,
    belief: Tensor,
    *,
    rates: Sequence[float | Tensor],
    change: float | Tensor,
    shares: Tensor | None = None,
    chain: Filter = posterior.filter_chunked,
) -> Tensor:
    """Return the joint belief in rate and expert after each token, float64 [B, T, M, E]; all of it sums to one.

    Args:
        evidence: log evidence [B, T, E].
        belief: the joint belief before the first token [B, M, E].
        rates: ρ of each filter.
        change: σ.
        shares: π, how probable each expert is where the author changes, [E]; None: all alike.
        chain: the filter, `filter_chunked` or its plain twin.
    """
    trust = belief.sum(-1)
    likelihood = posterior.relative(evidence, belief).exp()
    filtered, foretold = [], []
    for number, rate in enumerate(rates):
        before = belief[:, number] / trust[:, number, None]
        after = chain(evidence, before, rate, shares)
        expected = posterior.switched(torch.cat([before[:, None], after[:, :-1]], 1), rate, shares)
        filtered.append(after)
        foretold.append((expected * likelihood).sum(-1).log())
    trusted = chain(torch.stack(foretold, -1), trust, change, None)
    return trusted[..., None] * torch.stack(filtered, 2)
