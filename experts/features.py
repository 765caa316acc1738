"""Features of a token for hidden-state evidence: what a gate and a contributor must compute alike.

    x_t = EMA_β(P · rms(h_t)),   rms(h) = h / sqrt(mean(h²)),
    EMA_β(x)_t = (1-β)/(1-β^t) · Σ_{s ≤ t} β^(t-s) x_s        (bias-corrected, over the tokens of one text)

h_t is the token's embedding. P has p rows of signs ±1/√H, from the bits of SHAKE-256 over
`moehub features SEED H p`: the same on every machine and in every version of every library; P is the identity
where p = H. For sums, x_t is multiplied by `scale`, rounded, and limited to -127 … 127, so that n, Σx and Σxxᵀ
are exact integers, whatever the order.

Shapes: B batch, T tokens, H hidden size, p dimensions, V vocabulary, L chunk of tokens.
"""

import functools
import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from moehub.errors import ExpertError
from moehub.experts.statistics import FeatureSums

MOST_DIMENSIONS = 256
_CHUNK = 64
_EXACT = 1024
"""Products of int8 summed in float32 are exact up to 2^24 / 127² = 1040 of them, even in TF32 and bf16 units."""
_TINY = 1e-12
_NAME = re.compile(r"embedding-ema p=(\d+) beta=([0-9.e-]+) scale=([0-9.e+-]+) seed=(\d+) round=int8")


@dataclass(frozen=True)
class Recipe:
    """How features are made; sums of different recipes cannot be added."""

    dimensions: int
    """p."""
    beta: float = 0.9
    """β, how much of the running mean is kept from token to token."""
    scale: float = 32.0
    """Features are multiplied by this before they are rounded to int8."""
    seed: int = 0
    """Which random signs the projection has."""

    def name(self) -> str:
        """Return the recipe as one line, as it stands in `FeatureSums.recipe`."""
        return f"embedding-ema p={self.dimensions} beta={self.beta!r} scale={self.scale!r} seed={self.seed} round=int8"

    @classmethod
    def parse(cls, name: str) -> "Recipe":
        """Return the recipe that `name` writes down.

        Raises:
            ExpertError: it is no recipe that this moehub knows.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise ExpertError(f"{name!r} is no recipe of features that this moehub knows: update moehub")
        return cls(int(match[1]), float(match[2]), float(match[3]), int(match[4]))


def recipe_for(hidden: int) -> Recipe:
    """Return the recipe for a base of this hidden size."""
    return Recipe(dimensions=min(MOST_DIMENSIONS, hidden))


def project(hidden_states: Tensor, recipe: Recipe) -> Tensor:
    """Return P · rms(h) for each hidden state: [..., H] to float32 [..., p]."""
    hidden_states = hidden_states.float()
    norm = hidden_states.square().mean(-1, keepdim=True).add(_TINY).rsqrt()
    size = hidden_states.shape[-1]
    scaled = hidden_states * norm
    return scaled if size == recipe.dimensions else scaled @ projection(size, recipe, hidden_states.device)


@functools.lru_cache(maxsize=8)
def projection(hidden: int, recipe: Recipe, device: torch.device) -> Tensor:
    """Return Pᵀ, float32 [H, p]."""
    amount = hidden * recipe.dimensions
    message = f"moehub features {recipe.seed} {hidden} {recipe.dimensions}"
    digest = hashlib.shake_256(message.encode()).digest((amount + 7) // 8)
    # Not an inference tensor even if it is first needed in inference mode: it is kept for training too.
    with torch.inference_mode(mode=False):
        octets = torch.tensor(list(digest), dtype=torch.uint8)
        bits = (octets[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
        signs = bits.flatten()[:amount].view(hidden, recipe.dimensions).float() * 2 - 1
        return (signs / math.sqrt(hidden)).to(device)


def ema(x: Tensor, mask: Tensor, carry: Tensor, seen: Tensor, recipe: Recipe) -> tuple[Tensor, Tensor, Tensor]:
    """Return the bias-corrected running mean of `x`, and the state after the last token.

    Args:
        x: float [B, T, p].
        mask: [B, T], zero where a token is padding: it is not counted, and the mean before it is repeated.
        carry: float [B, p], the uncorrected running mean before the first token, zeros at the start.
        seen: [B], how many tokens that mean holds.
        recipe: for its β.

    Returns:
        The mean at each token [B, T, p] (zeros before the first that counts), the new `carry`, the new `seen`.
    """
    counted = mask.to(x.dtype)
    parts = []
    for begin in range(0, x.shape[1], _CHUNK):
        chunk, weight = x[:, begin : begin + _CHUNK], counted[:, begin : begin + _CHUNK]
        steps = weight.cumsum(1)
        # Each token's contribution has decayed once for every counted token after it: never a power above 1.
        decay = recipe.beta ** (steps[:, :, None] - steps[:, None, :]).clamp_min(0)
        mixed = (decay * weight[:, None, :]).tril() @ chunk * (1 - recipe.beta)
        uncorrected = mixed + recipe.beta ** steps[..., None] * carry[:, None]
        total = seen[:, None].to(x.dtype) + steps
        parts.append(uncorrected / (1 - recipe.beta ** total.clamp_min(1))[..., None])
        carry, seen = uncorrected[:, -1], seen + steps[:, -1].to(seen.dtype)
    return torch.cat(parts, 1) if parts else x, carry, seen


def ema_reference(
    x: Tensor, mask: Tensor, carry: Tensor, seen: Tensor, recipe: Recipe
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `ema` does, token by token."""
    means = []
    for step in range(x.shape[1]):
        counts = mask[:, step].bool()
        carry = torch.where(counts[:, None], recipe.beta * carry + (1 - recipe.beta) * x[:, step], carry)
        seen = seen + counts.to(seen.dtype)
        means.append(carry / (1 - recipe.beta ** seen.to(x.dtype).clamp_min(1))[:, None])
    return torch.stack(means, 1) if means else x, carry, seen


def quantise(features: Tensor, recipe: Recipe) -> Tensor:
    """Return features as int8, the shape of the input."""
    return (features * recipe.scale).round().clamp(-127, 127).to(torch.int8)


def sums(documents: Iterable[Tensor], embedding: Tensor, recipe: Recipe) -> FeatureSums:
    """Return the exact feature sums of tokenised documents (int64 [T] each) under an embedding [V, H]."""
    table = project(embedding.detach(), recipe)
    p, device = recipe.dimensions, table.device
    count, total = 0, torch.zeros(p, dtype=torch.int64, device=device)
    gram = torch.zeros(p, p, dtype=torch.int64, device=device)
    for ids in documents:
        x = table[ids.to(device)][None]
        mask = torch.ones(x.shape[:2], device=device)
        smoothed, _, _ = ema(x, mask, x.new_zeros(1, p), x.new_zeros(1), recipe)
        for part in quantise(smoothed[0], recipe).split(_EXACT):
            total += part.sum(0, dtype=torch.int64)
            gram += (part.float().T @ part.float()).to(torch.int64)
        count += len(ids)
    return FeatureSums(recipe.name(), count, total.cpu(), gram.cpu())
