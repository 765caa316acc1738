"""A window of text on its way through the gate, and what the gate remembers of the text before it.

Shapes: B batch, T tokens, E columns of the gate (the null expert's last, where there is one).
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

Memory = tuple[Tensor, ...]
"""What one method remembers: tensors whose first dimension is the batch."""


Alone = Callable[[Tensor, Tensor, Memory], tuple[Tensor, Memory]]
"""Token ids [B, T], their mask and the memory before → log p of each token for every column [B, T, E], and after."""


@dataclass(frozen=True)
class Window:
    """The tokens of one forward."""

    ids: Tensor
    """int64 [B, T]."""
    mask: Tensor
    """bool [B, T]: False for padding."""
    embed: Callable[[Tensor], Tensor]
    """Token ids → the base's embeddings [B, T, H]; called only by methods that need them."""
    alone: Alone | None = None
    """What each expert alone makes of tokens; None where there is no model."""


@dataclass(frozen=True)
class GateState:
    """What the gate knows after the last token: it belongs beside the KV cache."""

    belief: Tensor
    """In each switching rate and expert together: float64 [B, M, E]."""
    memories: tuple[Memory, ...]
    """One for each method of the gate."""

    def select(self, rows: Tensor) -> "GateState":
        """Return the state of the given rows of the batch, in that order, repeats allowed."""
        return GateState(
            self.belief.index_select(0, rows.to(self.belief.device)),
            tuple(
                tuple(tensor.index_select(0, rows.to(tensor.device)) for tensor in memory) for memory in self.memories
            ),
        )
