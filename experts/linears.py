"""The linears of a base and their shapes, from its configuration alone: nothing is downloaded or allocated."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from moehub.base import configuration


def linear_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Return name → (d_out, d_in) of every linear of the base with this `config.json`."""
    return dict(_shapes(json.dumps(config, sort_keys=True)))


@lru_cache(maxsize=8)
def _shapes(config: str) -> tuple[tuple[str, tuple[int, int]], ...]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(configuration(json.loads(config)))
    return tuple((name, shape) for name, module in model.named_modules() if (shape := shape_of(module)) is not None)


def shape_of(module: nn.Module) -> tuple[int, int] | None:
    """Return (d_out, d_in) of a linear, or None for any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, Conv1D):
        return int(module.weight.shape[1]), int(module.weight.shape[0])
    return None
