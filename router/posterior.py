"""The filter: whose text is this? A Bayesian posterior over experts, carried from token to token.

Shapes: B batch, T tokens, E experts (the null expert among them), N chunks of C tokens.

    p_t ∝ [(1−ρ)·p_{t−1} + ρ·π] · exp(ℓ_t)

is the forward filter of a hidden Markov chain that keeps its state with probability 1−ρ and otherwise draws a new
one at random, e with probability π(e), 1/E where nothing else is said (Rabiner 1989, "A tutorial on hidden Markov
models", section III.A).
`filter_loop` is this definition; `filter_chunked` unrolls it within chunks. Unrolled, the unnormalised mass
of an expert is a sum over the time s of its last switch. With R_t = Σ_{u≤t} (ℓ_u + log(1−ρ)) and m_t = Σ_e a_t(e),

    a_t(e) = exp R_t(e) · [ p_0(e) + π(e)·ρ/(1−ρ) · Σ_{s≤t} m_{s−1} · exp(−R_{s−1}(e)) ],   m_0 = 1,

so that the C totals m of a chunk solve a triangular system and the rest has no recursion.
"""

import math

import torch
from torch import Tensor

CHUNK = 16
_FLOOR = -40.0
"""Log likelihoods this far below the best are as good as zero in float64 (e⁻⁴⁰ < 2⁻⁵⁷), and 16 of them still fit."""


def filter_loop(evidence: Tensor, prior: Tensor, rho: float | Tensor, shares: Tensor | None = None) -> Tensor:
    """Return the posterior after each token, [B, T, E], from log evidence [B, T, E] and the posterior before [B, E].

    `shares` is π, [E]; None: all alike. Plain twin of `filter_chunked`: one step per token.
    """
    likelihood = relative(evidence, prior).exp()
    steps = []
    for step in likelihood.unbind(1):
        mass = switched(prior, rho, shares) * step
        prior = mass / mass.sum(-1, keepdim=True)
        steps.append(prior)
    return torch.stack(steps, 1) if steps else likelihood


def filter_chunked(evidence: Tensor, prior: Tensor, rho: float | Tensor, shares: Tensor | None = None) -> Tensor:
    """Return what `filter_loop` returns, in T / 16 sequential steps instead of T.

    Where ρ is learned it is a tensor without dimensions, in both.
    """
    batch, length, experts = evidence.shape
    if length < CHUNK:
        return filter_loop(evidence, prior, rho, shares)
    # Tokens without evidence fill the last chunk; what they would have become is cut off again.
    padding = -length % CHUNK
    padded = torch.nn.functional.pad(relative(evidence, prior), (0, 0, 0, padding))
    staying = torch.log1p(-rho) if isinstance(rho, Tensor) else math.log1p(-rho)
    running = (padded + staying).view(batch, -1, CHUNK, experts).cumsum(2)
    grown = running.exp()
    shrunk = torch.cat([torch.ones_like(grown[:, :, :1]), (-running[:, :, :-1]).exp()], 2)
    redraw = rho / (1 - rho) * (torch.full_like(prior[0], 1 / experts) if shares is None else shares)
    # weights[t, s] = mass at t per unit of mass that was redrawn when token s came, for s ≤ t.
    weights = ((grown * redraw) @ shrunk.mT).tril()
    system = torch.eye(CHUNK).to(weights) - torch.nn.functional.pad(weights[..., 1:], (0, 1))
    inverse = torch.linalg.solve_triangular(system, torch.eye(CHUNK).to(weights), upper=False, unitriangular=True)

    scaled = []
    for chunk in range(grown.shape[1]):
        grown_C, shrunk_C = grown[:, chunk], shrunk[:, chunk]
        known = (grown_C @ prior[..., None])[..., 0] + weights[:, chunk, :, 0]
        totals = (inverse[:, chunk] @ known[..., None])[..., 0]
        sources = torch.cat([torch.ones_like(totals[:, :1]), totals[:, :-1]], 1)
        drawn = redraw * shrunk_C * sources[..., None]
        mass = grown_C[:, -1] * (prior + drawn.sum(1))
        scaled.append(prior[:, None] + drawn.cumsum(1))
        prior = mass / mass.sum(-1, keepdim=True)
    mass = grown * torch.stack(scaled, 1)
    posterior = mass / mass.sum(-1, keepdim=True)
    return posterior.view(batch, length + padding, experts)[:, :length]


def switched(posterior: Tensor, rho: float | Tensor, shares: Tensor | None = None) -> Tensor:
    """Return what is expected of the next token's author, after a posterior [..., E]."""
    return (1 - rho) * posterior + rho * (1 / posterior.shape[-1] if shares is None else shares)


def relative(evidence: Tensor, prior: Tensor) -> Tensor:
    """Return the evidence in the prior's precision, 0 for the best expert of each token and above the floor."""
    evidence = evidence.to(prior.dtype)
    return (evidence - evidence.amax(-1, keepdim=True)).clamp_min(_FLOOR)
