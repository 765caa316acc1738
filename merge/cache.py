"""The gate's state beside the KV cache: one more layer of whatever cache `generate` uses.

Beam search reorders a cache, contrastive and assisted decoding crop and repeat it: as one of its layers, the
gate's state goes through all of it by itself. The layer counts as a dummy, which caches pass over everywhere
else. It stands behind the base's own layers.

Shapes: B batch, T tokens so far.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DummyLayer

from moehub.router.window import GateState

Replay = Callable[[Tensor, Tensor], GateState]
"""Token ids and mask of a whole text [B, T] → the gate's state after it."""


class GateLayer(DummyLayer):
    """What the gate knows after the tokens in the cache."""

    def __init__(self, replay: Replay, *, batch: int, device: torch.device) -> None:
        super().__init__()
        self.replay = replay
        self.state: GateState | None = None
        self.ids = torch.zeros(batch, 0, dtype=torch.int64, device=device)
        self.mask = torch.zeros(batch, 0, dtype=torch.bool, device=device)

    def __deepcopy__(self, memo: dict[int, Any]) -> "GateLayer":
        # `replay` belongs to the model: copying a cache, as one does to reuse a prefix, must not copy the model.
        copied = GateLayer(self.replay, batch=len(self.ids), device=self.ids.device)
        copied.ids, copied.mask = copy.deepcopy((self.ids, self.mask), memo)
        copied.state = copy.deepcopy(self.state, memo)
        return copied

    def advance(self, ids: Tensor, mask: Tensor, state: GateState) -> None:
        """Remember the tokens [B, T] that led to `state`."""
        self.ids, self.mask = torch.cat([self.ids, ids], 1), torch.cat([self.mask, mask], 1)
        self.state = state

    def reset(self) -> None:
        """Forget everything."""
        self.ids, self.mask, self.state = self.ids[:, :0], self.mask[:, :0], None

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens, by going through the others again."""
        keep = self.ids.shape[1] - abs(tokens_to_remove)
        if keep == self.ids.shape[1]:
            return
        self.ids, self.mask = self.ids[:, :keep], self.mask[:, :keep]
        self.state = self.replay(self.ids, self.mask) if keep > 0 else None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the state of the beams that go on."""
        self._select(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every text of the batch."""
        self._select(torch.arange(len(self.ids), device=self.ids.device).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some texts of the batch."""
        self._select(torch.arange(len(self.ids), device=self.ids.device)[indices])

    def _select(self, rows: Tensor) -> None:
        rows = rows.to(self.ids.device)
        self.ids, self.mask = self.ids[rows], self.mask[rows]
        self.state = None if self.state is None else self.state.select(rows)


def gate_layer(cache: Cache, replay: Replay, *, layers: int, batch: int, device: torch.device) -> GateLayer:
    """Return the cache's gate layer, adding it behind the base's `layers` on first use."""
    if cache.layers and isinstance(cache.layers[-1], GateLayer):
        return cache.layers[-1]
    while len(cache.layers) < layers and cache.layer_class_to_replicate is not None:
        cache.layers.append(cache.layer_class_to_replicate())
    layer = GateLayer(replay, batch=batch, device=device)
    cache.layers.append(layer)
    return layer
