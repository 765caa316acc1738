"""How the rows of a step become batches: text by text where that is quicker, and in parts that fit a cache."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn

from moehub.experts import attention
from moehub.experts.adaptation import VIRTUAL
from moehub.experts.packing import Row, collate, flatten, keeps_apart
from moehub.experts.settings import TrainConfig

_PART_BYTES = 8 << 20
"""What the widest activation of a part may take on a CPU: larger ones go back to the system each time."""

Form: TypeAlias = Callable[[Sequence[Row]], dict[str, Tensor]]
"""Rows → a batch."""


@dataclass(frozen=True)
class Layout:
    """How a model is given the rows of one step."""

    by_text: bool
    """Whether attention runs inside each text (`moehub.experts.attention`), on rows that are put end to end."""
    parts: int
    """Batches that a step's rows are worked off in."""

    @property
    def form(self) -> Form:
        """What makes a batch of rows."""
        return flatten if self.by_text else collate


def layout(model: Any, rows: Sequence[Row], config: TrainConfig) -> Layout:
    """Return how `model` is to be given `rows`; `config.accumulation` is the least number of parts."""
    if config.method in VIRTUAL or not _by_text(model, rows):
        return Layout(by_text=False, parts=config.accumulation)
    head = model.get_output_embeddings()
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    widest = max(module.out_features for module in linears) * model.get_input_embeddings().weight.element_size()
    fitting = max(1, _PART_BYTES // (widest * max(len(row.ids) for row in rows)))
    least = max(config.accumulation, -(-config.batch_size // fitting))
    parts = next(count for count in range(least, config.batch_size + 1) if config.batch_size % count == 0)
    return Layout(by_text=True, parts=parts)


def _by_text(model: Any, rows: Sequence[Row]) -> bool:
    if not attention.can_be_by_text(model, max(length for row in rows for length in row.lengths)):
        return False
    return keeps_apart(model, flatten, within=attention.by_text(model))
