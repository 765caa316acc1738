"""TRL's trainers, made to work as ours do: our token ids, our checkpoints, one adapter in them, no model card."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments

from moehub import base as bases
from moehub.card import ADAPTER_WEIGHTS
from moehub.experts import adaptation, loop
from moehub.experts.checkpoints import Checkpoint
from moehub.experts.curves import Curves
from moehub.experts.settings import TrainConfig
from moehub.experts.tokens import Tokens
from moehub.experts.watch import Guard, OnStep, Watch

C = TypeVar("C", bound=TrainConfig)

if TYPE_CHECKING:

    class _Base(Trainer):
        """Whatever it is mixed into."""

else:
    _Base = object


class Ours(_Base):
    """What is mixed into a trainer of TRL, before its own class."""

    learned = 0
    """Tokens of answers that a loss was computed on."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any, **__: Any) -> Dataset:
        """Return what is already made of token ids."""
        return dataset

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: moehub writes its own."""

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:  # noqa: ARG002 (the Trainer's signature)
        """Count none."""
        return 0

    def compute_loss(self, model: Any, inputs: dict[str, Any], *arguments: Any, **options: Any) -> Any:
        """Return the loss, and count what it is a loss of."""
        if model.training:
            answers = inputs["completion_mask"] if "completion_mask" in inputs else inputs["attention_mask"]
            self.learned += int(answers.sum())
        return super().compute_loss(model, inputs, *arguments, **options)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002 (its signature)
        """Save the adapter alone: neither the one that it is compared with, nor a pickle of the settings."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in adaptation.state(self.model).items()}
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Bring the adapter back."""
        adaptation.restore(model or self.model, load_file(Path(resume_from_checkpoint) / ADAPTER_WEIGHTS))


class LibraryStage(ABC, Generic[C]):
    """A stage that a trainer of TRL trains."""

    kind: str
    task = "CAUSAL_LM"
    config: C
    tokenizer: Any
    documents: list[Tokens]
    examples: int
    held_out_examples: int
    left_out: Sequence[str]
    context_length: int
    guard: Guard | None = None
    """May end the training."""

    @abstractmethod
    def steps(self, processes: int) -> int:
        """Return the number of optimizer steps on so many processes."""

    @abstractmethod
    def trainer(self, model: Any, settings: TrainingArguments, watch: Watch) -> Any:
        """Return the trainer, with `watch` among its callbacks."""

    def load(self, base: bases.Base) -> Any:
        """Return the base's model."""
        return adaptation.load(base, self.config)

    def prepare(self, model: Any) -> None:
        """Nothing depends on the model."""

    def text_loss(self, model: Any) -> tuple[float, int] | None:  # noqa: ARG002 (a stage's signature)
        """Return nothing: there is no text that is imitated."""
        return None

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
        total = self.steps(settings.world_size)
        if since is not None and since.step >= total:
            return loop.finished(model, since, curves)
        with loop.bar(title, total, settings) as advance:
            watch = Watch(advance, since, on_step=on_step, curves=curves, guard=self.guard)
            return loop.drive(self.trainer(model, settings, watch), watch, since)
