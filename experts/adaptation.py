"""A base with an untrained LoRA adapter on it, through PEFT."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from torch import Tensor, nn

from moehub import base as bases
from moehub.card import BasePin
from moehub.errors import ConfigError
from moehub.experts.lowrank import LowRankLinear
from moehub.experts.settings import TrainConfig

ALL_LINEAR = "all-linear"


def load(base: bases.Base, config: TrainConfig) -> Any:
    """Return the base's model in the dtype that `config` asks for.

    Raises:
        BaseModelError: it cannot be loaded.
    """
    automatic = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    return base.load_model(dtype=automatic if config.dtype == "auto" else getattr(torch, config.dtype))


def adapt(model: Any, config: TrainConfig) -> Any:
    """Return the model with a new adapter, float32 and decided by `config.seed`; all else is frozen.

    Raises:
        ConfigError: the base has no linears of the names in `config.targets`.
    """
    names, known = config.target_names(), _linears(model)
    if names == [ALL_LINEAR]:
        names = sorted(known)
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"targets holds {', '.join(unknown)}, but the linears of this base are {', '.join(sorted(known))}: "
            f"name some of those, or {ALL_LINEAR} alone"
        )
    torch.manual_seed(config.seed)
    lora = _lora(config, names)
    if not getattr(model, "is_quantized", False):
        lora._register_custom_module({nn.Linear: LowRankLinear})  # noqa: SLF001 (PEFT documents it under this name)
    return get_peft_model(model, lora)


def state(model: Any) -> dict[str, Tensor]:
    """Return the adapter's tensors under the names that PEFT publishes."""
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def targets(model: Any) -> tuple[str, ...]:
    """Return the names of the linears that carry an adapter, in order."""
    return tuple(sorted(model.peft_config["default"].target_modules))


def published_config(config: TrainConfig, base: BasePin, names: Sequence[str]) -> LoraConfig:
    """Return PEFT's configuration of an adapter on the linears `names`, the same for the same training.

    It holds no path of this machine.
    """
    lora = _lora(config, names)
    lora.base_model_name_or_path, lora.revision = base.reference, base.revision
    lora.target_modules, lora.inference_mode = sorted(names), True
    return lora


def _lora(config: TrainConfig, names: Sequence[str]) -> LoraConfig:
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(names),
        task_type="CAUSAL_LM",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the bars, advice and warnings of transformers, PEFT and accelerate from a person's screen."""
    with bases.quiet_transformers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(accelerate|peft|torch|transformers)(\.|$)")
        yield


def _linears(model: Any) -> set[str]:
    """Return the last part of the names of all linears but the head; GPT-2's `Conv1D` is one.

    These are PEFT's `all-linear`, under names that are the same in every layer.
    """
    head = model.get_output_embeddings()
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if module is not head and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    }
