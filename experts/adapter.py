"""A PEFT LoRA adapter as the MoE sees it: A and B for each linear, and one scale.

An adapter's configuration comes from a stranger: what the sparse layer does not compute is refused, never ignored.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from moehub.card import ADAPTER_CONFIG
from moehub.errors import ExpertError
from moehub.experts.folder import Expert

KEY = re.compile(r"base_model\.model\.(?P<linear>.+)\.lora_(?P<part>[AB])\.weight")
_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Ways to initialise that leave the base's weights as they are."""
_REFUSED = {
    "use_dora": "DoRA rescales the base's weights",
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
    """The low-rank updates of one expert: W + scale·B·A."""

    pairs: Mapping[str, tuple[Tensor, Tensor]]
    """Name of a linear in the base → (A [r, d_in], B [d_out, r])."""
    scales: Mapping[str, float]
    """Name of a linear → its scale."""


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


def read_adapter(expert: Expert) -> Adapter:
    """Return the adapter of an expert.

    Raises:
        ExpertError: the weights are damaged, not finite, or hold anything but pairs of lora_A and lora_B.
    """
    config = read_config(expert.folder)
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in expert.adapter().items():
        match = KEY.fullmatch(name)
        if match is None:
            raise ExpertError(
                f"the adapter of {expert.name!r} holds a tensor {name!r}, expected only lora_A and lora_B of linears: "
                "train it without embeddings or saved modules"
            )
        found.setdefault(match["linear"], {})[match["part"]] = tensor
    for linear, parts in found.items():
        if set(parts) != {"A", "B"} or parts["A"].ndim != 2 or parts["B"].ndim != 2:
            raise ExpertError(f"the adapter of {expert.name!r} lacks lora_A or lora_B of {linear!r}: pull it again")
        if parts["A"].shape[0] != parts["B"].shape[1]:
            shapes = f"{tuple(parts['A'].shape)} and {tuple(parts['B'].shape)}"
            raise ExpertError(f"lora_A and lora_B of {linear!r} in {expert.name!r} do not fit together ({shapes})")
    pairs = {linear: (parts["A"], parts["B"]) for linear, parts in sorted(found.items())}
    return Adapter(pairs, {linear: _scale(config, linear, A.shape[0]) for linear, (A, _) in pairs.items()})


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
