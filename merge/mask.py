"""Which tokens of a window are text, whatever form the attention mask has.

Shapes: B batch, T tokens of the window, K tokens that attention may look at.
"""

from typing import Any

import torch
from torch import Tensor


def text_mask(ids: Tensor, attention_mask: Any, *, past: int) -> Tensor:
    """Return bool [B, T], False for padding.

    Args:
        ids: the window's tokens, [B, T].
        attention_mask: None, or [B, K] of ones and zeros, or what transformers makes of it for static caches and
            sliding windows: [B, 1, T, K] of booleans or of zeros and -inf, or a dictionary of those by kind of layer.
        past: tokens before the window, in the cache.
    """
    if isinstance(attention_mask, dict):
        attention_mask = attention_mask.get("full_attention", next(iter(attention_mask.values())))
    length = ids.shape[1]
    if isinstance(attention_mask, Tensor) and attention_mask.ndim == 2:
        return attention_mask[:, -length:].bool()
    if isinstance(attention_mask, Tensor) and attention_mask.ndim == 4:
        # What the last token may look at is text: padding is what nobody looks at.
        seen = attention_mask[:, 0, -1, past : past + length]
        return (seen if seen.dtype == torch.bool else seen == 0).expand(ids.shape)
    return torch.ones_like(ids, dtype=torch.bool)
