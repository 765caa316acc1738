"""Material for trainings that take a second."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from moehub.card import ADAPTER_WEIGHTS
from moehub.experts.examples import Completion, Example, Text
from moehub.experts.settings import TrainConfig

TEXTS: list[Example] = [
    Text(f"the lessee shall pay {number} for the rent of {number * 7} rooms. ") for number in range(40)
]
COMPLETIONS: list[Example] = [Completion(f"{number} + {number} =", f" {2 * number}") for number in range(40)]


def settings(**changes: Any) -> TrainConfig:
    """Return the settings of a small training: ten steps of two rows."""
    small = {"rank": 2, "learning_rate": 1e-2, "context_length": 64, "batch_size": 2, "max_steps": 10, "save_every": 4}
    return TrainConfig(**{**small, **changes})


def adapter(folder: Path) -> dict[str, Tensor]:
    """Return the weights of the expert in `folder`."""
    return load_file(folder / ADAPTER_WEIGHTS)


def same(first: Path, second: Path) -> bool:
    """Return whether two experts have the same weights, to the bit."""
    ours, theirs = adapter(first), adapter(second)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


class Interrupted(Exception):  # noqa: N818 (it stands for a power cut)
    """Raised in the middle of a training."""


def interrupt_at(step: int) -> Any:
    """Return a function for `on_step` that ends the training at `step`."""

    def on_step(now: int, _: float) -> None:
        if now == step:
            raise Interrupted

    return on_step


ignore_peft = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
"""PEFT 0.21 asks transformers 5.23 for a property that was renamed."""
