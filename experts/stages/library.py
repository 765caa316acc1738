"""TRL's trainers, made to work as ours do: our token ids, our checkpoints, one adapter in them, no model card."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import Trainer

from moehub.card import ADAPTER_WEIGHTS
from moehub.experts import adaptation

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
