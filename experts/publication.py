"""A trained adapter becomes an expert folder: PEFT's two files, router statistics, card, README."""

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors.torch import save_file
from torch import Tensor

from moehub import files
from moehub.card import ADAPTER_WEIGHTS, README, STATISTICS_FILE, Card, read_card
from moehub.errors import ExpertError, TrainingError
from moehub.experts import adaptation
from moehub.experts import curves as curve
from moehub.experts import folder as expert_folder
from moehub.experts.folder import Expert
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics
from moehub.hub.model_card import render_expert

PACKAGES = ("moehub", "torch", "transformers", "peft", "trl", "accelerate")
"""The libraries whose versions the card names."""


def check_place(output: Path, *, overwrite: bool) -> int:
    """Return the version that an expert written to `output` will have: one more than the one it replaces.

    Raises:
        TrainingError: something stands there that may not be replaced.
    """
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return 1
    try:
        previous = read_card(output)
    except (ExpertError, OSError):
        raise TrainingError(
            f"{output} exists and is no expert: choose another --output, or remove it yourself"
        ) from None
    if not overwrite:
        raise TrainingError(
            f"{output} already holds the expert {previous.name!r}, version {previous.version}: "
            "choose another --output, or replace it with --overwrite"
        )
    return previous.version + 1


def publish(
    output: Path,
    *,
    weights: Mapping[str, Tensor],
    config: TrainConfig,
    statistics: Statistics | None,
    card: Card,
    adapter: PeftConfig | None = None,
    curves: Sequence[Mapping[str, Any]] = (),
) -> Expert:
    """Write the expert in one step to `output`, in place of what stood there, and return it.

    Args:
        output: the expert's folder.
        weights: `adaptation.state`'s, or the same names and shapes from elsewhere.
        config: how it was trained.
        statistics: of its text; a reward model has none.
        card: its card, without the files.
        adapter: PEFT's configuration; that of a LoRA on the card's targets where it is None.
        curves: of each stage, as `moehub.experts.curves` keeps them; none: nothing is told of the training.

    Raises:
        TrainingError: the adapter holds values that are not finite.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise diverged("the adapter holds values that are not finite")
    lora = adapter or adaptation.published_config(config, card.base, card.targets)
    with files.new_folder(output) as building:
        lora.save_pretrained(str(building))
        save_file(tensors, building / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        if statistics is not None:
            statistics.save(building / STATISTICS_FILE)
        if curves:
            curve.write(building, curves, title=f"how {card.name} was trained")
        sealed = expert_folder.seal(building, card)
        files.write_text(building / README, render_expert(sealed))
    return expert_folder.open_expert(output)


def diverged(what: str) -> TrainingError:
    """Return the error of a training whose numbers left the finite."""
    return TrainingError(f"the training diverged ({what}): lower learning_rate, for example by half, and train again")


def versions() -> dict[str, str]:
    """Return name → version of the libraries that train."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # a checkout that is not installed
            from moehub import __version__

            found[name] = __version__
    return found
