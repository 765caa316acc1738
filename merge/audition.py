"""What each expert alone makes of a text: a forward of the base for every one of them, each with its own KV cache.

The caches travel as the memory of the gate's `likelihood`: tensors whose first dimension is the batch, so that
whatever `generate` does to a batch happens to them too.

Shapes: B batch, T new tokens, P tokens before, C columns (the null expert's last), V vocabulary, H heads, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from moehub.router.gate import Shared
from moehub.router.layer import Switchboard
from moehub.router.route import Route
from moehub.router.window import Memory

_FIXED = 2
"""Tensors of the memory before the caches': which tokens are text [B, P], and what is foretold next [B, C, V]."""


class Audition:
    """Lets every expert read a text alone."""

    def __init__(self, base: Any, board: Switchboard, *, experts: int, has_null: bool) -> None:
        """Keep the base with the experts in it, and where its layers find their route."""
        self.base, self.board, self.experts = base, board, experts
        self.columns: list[int | None] = [*range(experts), *([None] if has_null else [])]

    def without(self, expert: int) -> "Audition":
        """Return the audition of everybody but one."""
        others = Audition(self.base, self.board, experts=self.experts, has_null=False)
        others.columns = [column for column in self.columns if column != expert]
        return others

    @torch.no_grad()
    def __call__(self, ids: Tensor, mask: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        """Return log p of each token in nats, float32 [B, T, C], 0 for the first of a text, and the memory after it.

        Args:
            ids: int64 [B, T].
            mask: bool [B, T], False for padding.
            memory: what the call for the tokens before returned; nothing at the beginning of a text.
        """
        seen = torch.cat([memory[0], mask], 1) if memory else mask
        heard, foretold, caches = [], [], []
        for column, expert in enumerate(self.columns):
            cache = _cache(memory, column)
            # Every call has its own route object: layers remember what they made of one.
            route = Route.fixed(expert, tokens=ids.numel(), experts=self.experts, device=ids.device)
            self.board.routing = Shared(route)
            logits = self.base(input_ids=ids, past_key_values=cache, use_cache=True, **_padding(seen, ids)).logits
            logs = logits.float().log_softmax(-1)
            before = memory[1][:, column, None] if memory else torch.zeros_like(logs[:, :1])
            known = torch.cat([before, logs[:, :-1]], 1)
            heard.append(known.gather(-1, ids[..., None])[..., 0])
            foretold.append(logs[:, -1])
            caches.append([tensor for layer in cache.layers for tensor in (layer.keys, layer.values)])
        preceded = seen[:, -ids.shape[1] - 1 : -1] if memory else torch.nn.functional.pad(seen[:, :-1], (1, 0))
        nats = torch.stack(heard, -1) * (mask & preceded)[..., None]
        return nats, (seen, torch.stack(foretold, 1), *_stacked(caches))


def _padding(seen: Tensor, ids: Tensor) -> dict[str, Tensor]:
    """Return what the base must know of padding: nothing where there is none."""
    if bool(seen.all()):
        return {}
    places = (seen.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    return {"attention_mask": seen.long(), "position_ids": places}


def _cache(memory: Memory, column: int) -> DynamicCache:
    """Return the KV cache of one column."""
    cache = DynamicCache()
    tensors = [tensor[:, column] for tensor in memory[_FIXED:]]
    for layer in range(len(tensors) // 2):
        cache.update(tensors[2 * layer], tensors[2 * layer + 1], layer)
    return cache


def _stacked(caches: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Return keys and values of all columns, layer by layer: [B, C, H, P + T, D]."""
    return [torch.stack(tensors, 1) for tensors in zip(*caches, strict=True)]
