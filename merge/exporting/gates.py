"""Mixtral's gates, solved layer by layer from text: a linear discriminant on what each layer's FFN reads.

Mixtral routes a token in every layer by softmax(W·h) over the FFN's input h, without a bias. With the mean μ_e of h
over expert e's text, μ̄ = mean_e μ_e, M = mean_e E_e[h hᵀ], C = M − mean_e μ_e μ_eᵀ, and C ← (1−ε)·C + ε·diag(C):

    ℓ_e(h) = w_e·h + b_e   with   w_e = C⁻¹ (μ_e − μ̄),   b_e = −½ μ_eᵀ C⁻¹ μ_e

is the log posterior of equal priors up to what all experts share (Hastie, Tibshirani and Friedman, "The Elements of
Statistical Learning", section 4.3; shrinkage towards the diagonal as in Schäfer and Strimmer 2005, here with
ε = H/(H + tokens)). The bias goes into the weights by u·h ≈ 1 with u = M⁻¹ μ̄, the best such u in the mean square:
W_e = (w_e + (b_e − mean b)·u) / temperature. The hidden states are those of the MoE sent to the text's own expert,
which is what they are in the exported model wherever its gates are right.

The feature sums that contributors publish (`moehub.experts.features`) cannot stand in for the text: they are sums over
random projections of embeddings, averaged over the tokens before, and belong to no layer, while W multiplies one
token's own hidden state inside each layer.

Shapes: L layers, H hidden size, E experts (the null expert's last), T tokens.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moehub.console import progress
from moehub.errors import DataError
from moehub.experts.packing import Row
from moehub.merge.model import MoehubForCausalLM

MOST_TOKENS = 1 << 16
"""Tokens of one expert's text that are read, at most."""
TEMPERATURE = 2.0
"""Divides the log posterior: the features are not Gaussian, and it would be too sure."""
_HELD_OUT = 10
"""One row in this many is kept to measure the gates with."""
_TINY = 1e-12


@dataclass(frozen=True)
class Gates:
    """A gate for each layer."""

    weights: Tensor
    """float32 [L, E, H]."""
    right: float | None
    """Share of tokens, over all layers, whose largest weight is their own text's expert; measured on rows that the
    gates were not made of; None where the texts were too short to keep any."""


def solve_gates(model: MoehubForCausalLM, texts: Mapping[str, Sequence[Row]]) -> Gates:
    """Return the gates that tell the texts apart, one for each layer of a base like Llama.

    Args:
        model: the MoE; its experts change nothing but linears of the FFN and the attention.
        texts: name of an expert, or "null" → rows; in the order of Mixtral's experts.

    Raises:
        DataError: a text has no tokens.
    """
    learned = {name: _first([row for at, row in enumerate(rows) if at % _HELD_OUT != _HELD_OUT - 1])
               for name, rows in texts.items()}  # fmt: skip
    held_out = {name: rows[_HELD_OUT - 1 :: _HELD_OUT] for name, rows in texts.items()}
    means, moment, tokens = _moments(model, learned)
    weights = torch.stack([_discriminant(mean, square, tokens) for mean, square in zip(means, moment, strict=True)])
    return Gates(weights, _accuracy(model, held_out, weights))


def _moments(model: MoehubForCausalLM, texts: Mapping[str, Sequence[Row]]) -> tuple[Tensor, Tensor, int]:
    """Return the means [L, E, H], the second moment [L, H, H], every expert counting alike, and the tokens read."""
    config = model.base.config
    L, H, E = config.num_hidden_layers, config.hidden_size, len(texts)
    means = torch.zeros(L, E, H, dtype=torch.float64)
    moment = torch.zeros(L, H, H, dtype=torch.float64)
    total = 0
    with progress("reading the gates' texts", sum(map(len, texts.values()))) as advance:
        for number, (name, rows) in enumerate(texts.items()):
            count = sum(len(row.ids) for row in rows)
            if not count:
                raise DataError(f"the text of {name!r} has no tokens: give more of it with --gate-text")
            for row in rows:
                for layer, h in enumerate(_inputs(model, name, row)):
                    means[layer, number] += h.sum(0, dtype=torch.float64) / count
                    moment[layer] += (h.T @ h).double() / (count * E)
                advance()
            total += count
    return means, moment, total


def _discriminant(means: Tensor, moment: Tensor, tokens: int) -> Tensor:
    """Return W, float32 [E, H], from one layer's means [E, H] and second moment [H, H]."""
    E, H = means.shape
    between = means.T @ means / E
    within = moment - between
    spread = within.diagonal().clamp_min(_TINY)
    share = H / (H + tokens)
    within = (1 - share) * within + share * torch.diag(spread) + _TINY * spread.mean() * torch.eye(H, dtype=means.dtype)
    centre = means.mean(0)
    solved = torch.linalg.solve(within, means.T).T  # C⁻¹ μ_e, [E, H]
    bias = -0.5 * (solved * means).sum(1)
    one = torch.linalg.solve(within + between, centre)
    weight = solved - solved.mean(0) + (bias - bias.mean())[:, None] * one
    return (weight / TEMPERATURE).float()


def _accuracy(model: MoehubForCausalLM, texts: Mapping[str, Sequence[Row]], weights: Tensor) -> float | None:
    right = count = 0
    for number, (name, rows) in enumerate(texts.items()):
        for row in _first(rows):
            for h, weight in zip(_inputs(model, name, row), weights, strict=True):
                right += int(((h @ weight.T).argmax(1) == number).sum())
                count += len(h)
    return right / count if count else None


@torch.no_grad()
def _inputs(model: MoehubForCausalLM, name: str, row: Row) -> list[Tensor]:
    """Return what each layer's FFN reads, float32 [T, H], with every token sent to one expert."""
    with model.forced(name), _recording(model) as inputs:
        model(row.ids[None].to(model.device), use_cache=False, logits_to_keep=1)
        return [h.reshape(-1, h.shape[-1]).float().cpu() for h in inputs]


@contextlib.contextmanager
def _recording(model: MoehubForCausalLM) -> Iterator[list[Tensor]]:
    """Yield a list that the inputs of the layers' FFNs are appended to."""
    inputs: list[Tensor] = []

    def keep(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs.append(arguments[0])

    layers = range(model.base.config.num_hidden_layers)
    hooks = [model.base.get_submodule(f"model.layers.{at}.mlp").register_forward_pre_hook(keep) for at in layers]
    try:
        yield inputs
    finally:
        for hook in hooks:
            hook.remove()


def _first(rows: Sequence[Row]) -> list[Row]:
    """Return the first rows that hold `MOST_TOKENS` tokens together."""
    kept, size = [], 0
    for row in rows:
        if size >= MOST_TOKENS:
            break
        kept.append(row)
        size += len(row.ids)
    return kept
