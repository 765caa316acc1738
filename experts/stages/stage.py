"""What every stage of training offers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from transformers import TrainingArguments

from moehub import base as bases
from moehub.experts.checkpoints import Checkpoint
from moehub.experts.curves import Curves
from moehub.experts.settings import TrainConfig
from moehub.experts.tokens import Tokens
from moehub.experts.watch import OnStep


@dataclass(frozen=True)
class Measurement:
    """What a model is worth on what was held out, under the name that the card gives it."""

    metric: str
    value: float
    count: int
    """What the value is a mean over."""


class Stage(Protocol):
    """One stage with its material, read, split and fitted; nothing is loaded yet."""

    @property
    def kind(self) -> str:
        """Return what the card calls it."""
        ...

    @property
    def task(self) -> str:
        """Return PEFT's name for what the model does."""
        ...

    @property
    def config(self) -> TrainConfig:
        """Return its settings."""
        ...

    @property
    def documents(self) -> Sequence[Tokens]:
        """Return the text that router statistics count; none of what is held out."""
        ...

    @property
    def examples(self) -> int:
        """Return how many are in the training split."""
        ...

    @property
    def held_out_examples(self) -> int:
        """Return how many are not trained on, but measured on."""
        ...

    @property
    def left_out(self) -> Sequence[str]:
        """Return the origins of the examples that were longer than the context."""
        ...

    @property
    def context_length(self) -> int:
        """Return the most tokens that the model reads at once."""
        ...

    def arguments(self, folder: Path) -> TrainingArguments:
        """Return the trainer's settings; it works in `folder`."""
        ...

    def steps(self, processes: int) -> int:
        """Return the number of optimizer steps on so many processes, once the material is packed."""
        ...

    def load(self, base: bases.Base) -> Any:
        """Return the base's model, without an adapter."""
        ...

    def prepare(self, model: Any) -> None:
        """Look at the base's model before it gets an adapter."""

    def measure(self, model: Any) -> Measurement | None:
        """Return what the model is worth on what was held out, None where nothing was."""
        ...

    def text_loss(self, model: Any) -> tuple[float, int] | None:
        """Return the loss on held-out text in nats per token and the number of those; None where there is no text."""
        ...

    def run(
        self,
        model: Any,
        settings: TrainingArguments,
        *,
        title: str,
        since: Checkpoint | None,
        on_step: OnStep | None,
        curves: Curves,
    ) -> Checkpoint:
        """Train the model's adapter, from the checkpoint `since` where there is one, and return where it ended."""
