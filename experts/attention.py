"""Attention inside each text of a packed row: what must not see each other is never multiplied.

transformers masks: the scores of all pairs of a row are computed, and most of them thrown away. On a CPU the
backward pass of that took a third of a training's time, so there attention runs over one text after another.
transformers is told by name (its `AttentionInterface`), and lets the lengths pass through every model as
`cu_seq_lens_q`.

Shapes: T tokens of a row, H heads of the queries, G of the keys and values, D numbers a head, N tokens of one text.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface

BY_TEXT = "moehub_by_text"
"""The name under which transformers knows it."""
_MASKED = "sdpa"
_STRIDE = 32
_SHORT = 512
"""Up to this many tokens, torch's fused attention in bfloat16 is slower on a CPU than the formula itself."""


def can_be_by_text(model: Any, longest: int) -> bool:
    """Return whether the model's own attention is full and causal for texts of `longest` tokens, on a CPU.

    It is said by the configuration; `moehub.experts.packing.keeps_apart` tries it.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    return (
        model.device.type == "cpu"
        and model.config._attn_implementation == _MASKED  # noqa: SLF001 (transformers has no other name for it)
        and kinds <= {"full_attention", "sliding_attention"}
        and (window is None or window >= longest)
    )


@contextmanager
def by_text(model: Any) -> Iterator[None]:
    """Let the model attend text by text; every forward pass must be given `cu_seq_lens_q`, with one row a batch."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain.set_attn_implementation(BY_TEXT)
    try:
        yield
    finally:
        plain.set_attn_implementation(_MASKED)


def attend(
    module: Any,  # noqa: ARG001 (transformers' signature)
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    cu_seq_lens_q: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return causal attention within each text: [1, T, H, D].

    Args:
        module: whose attention it is.
        query: [1, H, T, D].
        key: [1, G, T, D].
        value: [1, G, T, D].
        attention_mask: nothing; the lengths say it all.
        dropout: share of the weights that is dropped.
        scaling: what scores are multiplied by; by default 1/√D.
        cu_seq_lens_q: int [texts + 1], where each text begins, and T.

    Raises:
        ValueError: there is a mask, or more than one row.
    """
    if attention_mask is not None or query.shape[0] != 1:
        raise ValueError("attention by text takes one row and no mask")
    lengths = cu_seq_lens_q.diff().tolist()
    scale = scaling if scaling is not None else 1 / math.sqrt(query.shape[-1])
    texts = zip(*(each.split(lengths, dim=2) for each in (query, key, value)), strict=True)
    return torch.cat([_one(*text, dropout=dropout, scale=scale).transpose(1, 2) for text in texts], dim=1), None


def _one(query: Tensor, key: Tensor, value: Tensor, *, dropout: float, scale: float) -> Tensor:
    """Return the attention of one text: [1, H, N, D]."""
    if query.dtype == torch.bfloat16 and query.shape[2] <= _SHORT:
        return _formula(query, key, value, dropout=dropout, scale=scale)
    return functional.scaled_dot_product_attention(
        query, key, value, dropout_p=dropout, scale=scale, is_causal=True, enable_gqa=query.shape[1] != key.shape[1]
    )


def _formula(query: Tensor, key: Tensor, value: Tensor, *, dropout: float, scale: float) -> Tensor:
    """Return softmax(scale · q kᵀ, causal) v: heads that share a key are multiplied with it at once.

    Texts are padded at their end, where causal attention does not see it, so that few shapes occur: each new one
    costs a millisecond or two.
    """
    tokens = query.shape[2]
    query, key, value = (functional.pad(each, (0, 0, 0, -tokens % _STRIDE)) for each in (query, key, value))
    _, heads, size, width = query.shape
    groups = key.shape[1]
    later = torch.full((size, size), -math.inf, dtype=query.dtype).triu(1).repeat(heads // groups, 1)
    scores = torch.baddbmm(later, query.reshape(groups, -1, width), key[0].transpose(1, 2), alpha=scale)
    weights = functional.dropout(scores.softmax(-1), dropout)
    return torch.bmm(weights, value[0]).view(1, heads, size, width)[:, :, :tokens]


AttentionInterface.register(BY_TEXT, attend)
