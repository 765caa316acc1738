"""A PEFT LoRA adapter as the MoE sees it: A and B for each linear, one scale, and where it is DoRA the magnitudes.

An adapter's configuration comes from a stranger: what the sparse layer does not compute is refused, never ignored.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from moehub.errors import ExpertError
from moehub.experts.folder import Expert
from moehub.tensorfile import Span, TensorFile

KEY = re.compile(r"base_model\.model\.(?P<linear>.+)\.lora_(?:(?P<part>[AB])\.weight|magnitude_vector)")
"""The name of a tensor; it has no part where it is DoRA's magnitudes."""
MAGNITUDE = "magnitude"
"""What stands for the part of those."""
_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to initialise that leave the base's weights as they are."""
_REFUSED = {
    "modules_to_save": "it replaces whole modules of the base",
    "trainable_token_indices": "it changes embeddings",
    "target_parameters": "it adapts bare parameters",
    "layer_replication": "it repeats layers of the base",
    "lora_bias": "its adapters carry a bias",
    "alora_invocation_tokens": "it switches itself on by tokens",
    "use_qalora": "it pools its inputs",
    "use_bdlora": "its matrices are made of blocks",
    "kasa_config": "KaSA changes the base's weights",
    "arrow_config": "it is a router over other adapters",
}


@dataclass(frozen=True)
class Adapter:
    """What one expert makes of linears: W + scale·B·A, or a DoRA of that (`moehub.experts.dora`)."""

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    """Name of a linear in the base → (A [r, d_in], B [d_out, r])."""
    scales: Mapping[str, float]
    """Name of a linear → its scale."""
    magnitudes: Mapping[str, Tensor] = field(default_factory=dict)
    """Name of a linear → m [d_out], the norms of its rows; of every linear of a DoRA, of none of a LoRA."""


def config_faults(config: Mapping[str, object]) -> list[str]:
    """Return one sentence for each thing in an `adapter_config.json` that the sparse layer cannot do."""
    kind = str(config.get("peft_type", ""))[:80].rpartition(".")[2]
    if kind != "LORA":
        return [f"it is a {kind or 'nameless'} adapter, expected LORA: train it with `moehub train-expert`"]
    faults = [
        f"its {key} = {config[key]!r:.80} cannot be part of a MoE ({why}): train it without"
        for key, why in _REFUSED.items()
        if config.get(key)
    ]
    if config.get("bias", "none") != "none":
        faults.append(f"its bias = {config['bias']!r:.80} changes the base's biases: train it with bias='none'")
    if config.get("init_lora_weights", True) not in _INITS:
        faults.append(
            f"its init_lora_weights = {config['init_lora_weights']!r:.80} changes the base's weights: "
            "convert it with PEFT's path_initial_model_for_weight_conversion, or train it with the default"
        )
    return faults


def read_config(folder: Path) -> dict[str, Any]:
    """Return `adapter_config.json`.

    Raises:
        ExpertError: it is missing or no JSON object.
    """
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExpertError(f"{folder / ADAPTER_CONFIG} cannot be read ({error}): pull the expert again") from error
    if not isinstance(config, dict):
        raise ExpertError(f"{folder / ADAPTER_CONFIG} holds no JSON object: pull the expert again")
    return config


class MappedPairs(Mapping[str, tuple[Tensor, Tensor]]):
    """A and B of each linear in a file that is mapped: nothing is read before somebody looks."""

    def __init__(self, file: TensorFile, names: Mapping[str, tuple[str, str]]) -> None:
        """Keep the file, and under which names a linear's A and B stand in it."""
        self.file, self.names = file, names

    def __getitem__(self, linear: str) -> tuple[Tensor, Tensor]:
        down, up = self.names[linear]
        return self.file.tensor(down), self.file.tensor(up)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def spans(self, linear: str) -> tuple[Span, Span]:
        """Return where A and B of a linear lie."""
        down, up = self.names[linear]
        return self.file.spans[down], self.file.spans[up]


class MappedVectors(Mapping[str, Tensor]):
    """One vector of each linear in a file that is mapped."""

    def __init__(self, file: TensorFile, names: Mapping[str, str]) -> None:
        """Keep the file, and under which name a linear's vector stands in it."""
        self._file, self._names = file, names

    def __getitem__(self, linear: str) -> Tensor:
        return self._file.tensor(self._names[linear])

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_adapter(expert: Expert) -> Adapter:
    """Return the adapter of an expert, after a look at every value.

    Raises:
        ExpertError: the weights are damaged, not finite, or hold anything but what a LoRA or a DoRA of linears has.
    """
    adapter = map_adapter(expert)
    broken = [
        linear
        for linear, pair in adapter.pairs.items()
        if not all(bool(torch.isfinite(one).all()) for one in (*pair, *_magnitude(adapter, linear)))
    ]
    if broken:
        raise ExpertError(
            f"the adapter of {expert.name!r} holds values that are not finite in {broken[0]} ({len(broken)} linears in "
            "all): the training diverged; train the expert again with a smaller learning rate"
        )
    return adapter


def map_adapter(expert: Expert) -> Adapter:
    """Return the adapter of an expert in its mapped file: names and shapes are checked, no value is read.

    Raises:
        ExpertError: the file is damaged, or holds anything but what a LoRA or a DoRA of linears has.
    """
    config = read_config(expert.folder)
    path = expert.folder / ADAPTER_WEIGHTS
    try:
        file = TensorFile(path)
    except (OSError, ValueError) as error:
        raise ExpertError(f"{path} cannot be read ({error}): pull the expert again") from error
    found = _parts(file, expert.name)
    names, scales = {}, {}
    for linear, parts in sorted(found.items()):
        shapes = {part: file.spans[name].shape for part, name in parts.items()}
        _require_shapes(shapes, linear, expert.name, dora=bool(config.get("use_dora")))
        names[linear] = parts["A"], parts["B"]
        scales[linear] = _scale(config, linear, shapes["A"][0])
    vectors = {linear: parts[MAGNITUDE] for linear, parts in sorted(found.items()) if MAGNITUDE in parts}
    return Adapter(MappedPairs(file, names), scales, MappedVectors(file, vectors))


def _parts(file: TensorFile, expert: str) -> dict[str, dict[str, str]]:
    """Return linear → "A", "B" and perhaps `MAGNITUDE` → the tensor's name in the file."""
    found: dict[str, dict[str, str]] = {}
    for name in file.spans:
        match = KEY.fullmatch(name)
        if match is None:
            raise ExpertError(
                f"the adapter of {expert!r} holds a tensor {name!r}, expected only lora_A and lora_B of linears: "
                "train it without embeddings or saved modules"
            )
        found.setdefault(match["linear"], {})[match["part"] or MAGNITUDE] = name
    return found


def _require_shapes(shapes: Mapping[str, tuple[int, ...]], linear: str, expert: str, *, dora: bool) -> None:
    """Refuse tensors of a linear that are not those of one adapter."""
    pair = {part: shape for part, shape in shapes.items() if part != MAGNITUDE}
    if set(pair) != {"A", "B"} or any(len(shape) != 2 for shape in pair.values()):
        raise ExpertError(f"the adapter of {expert!r} lacks lora_A or lora_B of {linear!r}: pull it again")
    if shapes["A"][0] != shapes["B"][1]:
        both = f"{shapes['A']} and {shapes['B']}"
        raise ExpertError(f"lora_A and lora_B of {linear!r} in {expert!r} do not fit together ({both})")
    expected = (shapes["B"][0],) if dora else None
    if shapes.get(MAGNITUDE) != expected:
        raise ExpertError(
            f"the lora_magnitude_vector of {linear!r} in {expert!r} has the shape {shapes.get(MAGNITUDE)}, expected "
            f"{expected} where use_dora is {dora}: pull it again"
        )


def _magnitude(adapter: Adapter, linear: str) -> tuple[Tensor, ...]:
    return (adapter.magnitudes[linear],) if linear in adapter.magnitudes else ()


def by_pattern(patterns: Mapping[str, float] | None, linear: str, otherwise: float) -> float:
    """Return what PEFT's `rank_pattern` or `alpha_pattern` says about a linear: the first pattern that fits decides."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", linear):
            return value
    return otherwise


def _scale(config: Mapping[str, Any], linear: str, rank: int) -> float:
    """Return alpha/r, or alpha/√r for rank-stabilised LoRA (Kalajdzievski 2023), with PEFT's `alpha_pattern`."""
    alpha = float(by_pattern(config.get("alpha_pattern"), linear, config.get("lora_alpha") or 0))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
