"""What a MoE folder holds of a tuned gate: `tuned.safetensors`, and `tuned` among the router's settings.

Everything that the untuned gate is made of stays where it is, so dropping the tuning brings it back to the byte.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moehub import config as settings_loader
from moehub import files
from moehub.errors import ConfigError, ExpertError, MergeError, listed
from moehub.experts.features import Recipe
from moehub.router.arrow import ArrowGate
from moehub.router.gate import load_gate
from moehub.router.settings import RouterSettings
from moehub.router.tuned import Correction, Facts, TunedGate, tunable

TUNED_FILE = "tuned.safetensors"
TUNED_KEY = "tuned"
"""Where the router's settings in `config.json` hold the rest of it."""
_FORMAT = 1


@dataclass(frozen=True)
class Tuned:
    """How the gate of a MoE was tuned."""

    sha256: str
    """Of `tuned.safetensors`: `bias` [E], and `weight` [E, D] where embeddings are read, float32; experts in canonical
    order, the null expert last."""
    numbers: dict[str, float]
    """The router's settings in whose place these are."""
    recipe: str | None = None
    """Of the features that `weight` reads."""
    facts: Facts = field(default_factory=Facts)
    format: int = _FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Return it as it stands in `config.json`."""
        return dataclasses.asdict(self)


def parse(values: Any, source: str) -> Tuned:
    """Return what `config.json` says about the tuning.

    Raises:
        MergeError: it is of another format, or damaged; `source` says where it stood.
    """
    try:
        if isinstance(values, Mapping) and values.get("format") != _FORMAT:
            raise MergeError(f"{source} has format {values.get('format')!r:.40}, expected {_FORMAT}: update moehub")
        given = values.get("facts") if isinstance(values, Mapping) else None
        parts = {} if given is None else {"facts": settings_loader.from_mapping(Facts, given, source=source)}
        return settings_loader.from_mapping(Tuned, {**values, **parts}, source=source)
    except (ConfigError, TypeError) as error:
        raise MergeError(f"{error}; {_CURE}") from error


def load(
    folder: Path, tuned: Tuned, tables: Mapping[str, Tensor], settings: RouterSettings, names: list[str], *, null: bool
) -> TunedGate:
    """Return the tuned gate of the MoE in a folder.

    Args:
        folder: where `tuned.safetensors` lies.
        tuned: what the configuration says.
        tables: of the untuned gate.
        settings: of the untuned gate.
        names: experts in canonical order.
        null: whether there is a null expert.

    Raises:
        MergeError: a part of it is missing, damaged, or does not fit the MoE.
    """
    acting = _settings(tuned, settings, folder)
    prior = load_gate(tables, acting, names=names, has_null=null)
    if isinstance(prior, ArrowGate) or tuned.numbers.keys() - set(tunable(prior)):
        raise MergeError(f"{folder} was tuned in {', '.join(sorted(tuned.numbers))}, which its router lacks; {_CURE}")
    tensors = _tensors(folder, tuned)
    recipe = None
    if "weight" in tensors:
        try:
            recipe = Recipe.parse(str(tuned.recipe))
        except ExpertError as error:
            raise MergeError(str(error)) from error
    shapes = {"bias": (len(names) + null,)} | ({"weight": (len(names) + null, recipe.dimensions)} if recipe else {})
    faults = tensor_faults(tensors, shapes, torch.float32)
    if faults:
        raise MergeError(listed(f"{folder / TUNED_FILE} is no gate of this MoE; {_CURE}:", faults))
    return TunedGate(prior, Correction(tensors["bias"], tensors.get("weight"), recipe), tuned.facts)


def write(folder: Path, gate: TunedGate) -> Tuned:
    """Write `tuned.safetensors` into a folder, and return what its configuration is to say.

    Raises:
        MergeError: what was learned is not finite.
    """
    correction = gate.correction
    tensors = {name: tensor.detach().float().cpu().contiguous() for name, tensor in correction.named_parameters()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise MergeError(
            "the tuned gate holds values that are not finite, so nothing was written: the training diverged; load the "
            "MoE again and tune it with a smaller learning rate"
        )
    (folder / TUNED_FILE).unlink(missing_ok=True)  # it may be a link to another MoE's
    save_file(tensors, folder / TUNED_FILE)
    recipe = correction.recipe.name() if correction.recipe is not None else None
    return Tuned(files.sha256(folder / TUNED_FILE), gate.numbers(), recipe, gate.facts)


def tensor_faults(found: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> list[str]:
    """Return what is wrong with tensors that are to have these names and shapes and hold finite values."""
    faults = [f"the tensor {name!r:.80} is missing" for name in shapes.keys() - found.keys()]
    faults += [f"the tensor {name!r:.80} is unknown" for name in found.keys() - shapes.keys()]
    for name in sorted(shapes.keys() & found.keys()):
        tensor, shape = found[name], shapes[name]
        if tuple(tensor.shape) != shape or tensor.dtype != dtype:
            faults.append(f"{name} is {tensor.dtype} of shape {tuple(tensor.shape)}, expected {dtype} of {shape}")
        elif not bool(torch.isfinite(tensor).all()):
            faults.append(f"{name} holds values that are not finite")
    return sorted(faults)


def _settings(tuned: Tuned, settings: RouterSettings, folder: Path) -> RouterSettings:
    try:
        return settings_loader.from_mapping(
            RouterSettings, {**settings.to_dict(), **tuned.numbers}, source=f"{folder}: router.{TUNED_KEY}"
        )
    except ConfigError as error:
        raise MergeError(f"{error}; {_CURE}") from error


def _tensors(folder: Path, tuned: Tuned) -> dict[str, Tensor]:
    path = folder / TUNED_FILE
    try:
        if files.sha256(path) != tuned.sha256:
            raise MergeError(f"{path} is not the one that this MoE was tuned with (its sha256 differs): {_CURE}")
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise MergeError(f"{path} cannot be read ({error}): {_CURE}") from error


_CURE = "pull or tune the MoE again, or drop the tuning with `moehub merge --into FOLDER --untuned`"
