"""A base with an adapter on it, through PEFT: a new one, or the one of an expert that goes on learning."""

import dataclasses
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import (
    IA3Config,
    LoraConfig,
    PeftConfig,
    PrefixTuningConfig,
    PromptEncoderConfig,
    get_peft_model,
    get_peft_model_state_dict,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from torch import Tensor, nn

from moehub import base as bases
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, LOW_RANK, BasePin
from moehub.errors import ConfigError, ExpertError
from moehub.experts.adapter import read_config
from moehub.experts.lowrank import LowRankLinear
from moehub.experts.settings import TrainConfig

ALL_LINEAR = "all-linear"
SCORES = ("score", "classifier")
"""What transformers calls the head of a reward model."""
_BLOCK = 64
"""Of bitsandbytes' NF4."""
VIRTUAL = ("prefix", "p-tuning")
"""Methods that put tokens of their own before a text."""


def load(base: bases.Base, config: TrainConfig, *, rating: bool = False) -> Any:
    """Return the base's model in the dtype that `config` asks for, quantised if it says so, on its device.

    Args:
        base: the base.
        config: says how.
        rating: with a new head that gives one number, in the place of the one that gives the next token.

    Raises:
        BaseModelError: it cannot be loaded.
        ConfigError: what quantises is not installed.
    """
    automatic = torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32
    dtype = automatic if config.dtype == "auto" else getattr(torch, config.dtype)
    if config.quantize == "none":
        return base.load_model(dtype=dtype, rating=rating)
    width = int(base.load_config().get_text_config().hidden_size)
    if config.quantize == "nf4" and width % _BLOCK:
        raise ConfigError(f"quantize = 'nf4' takes weights in blocks of {_BLOCK}, and this base is {width} wide: int8")
    place = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    return base.load_model(
        dtype=dtype, rating=rating, quantization_config=_quantization(config.quantize, dtype), device_map={"": place}
    )


def _quantization(kind: str, dtype: torch.dtype) -> Any:
    """Return how transformers is to quantise.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"quantize = {kind!r} needs bitsandbytes, which is not installed: run `pip install 'moehub[quantize]'`"
        )
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def adapt(model: Any, config: TrainConfig, start: Path | None = None, *, task: str = "CAUSAL_LM") -> Any:
    """Return the model with a new adapter, float32 and decided by `config.seed`; all else is frozen.

    Args:
        model: a base's.
        config: says which adapter.
        start: the folder of an expert whose adapter is taken over; `continued` made `config` fit it.
        task: PEFT's name for what the model does.

    Raises:
        ConfigError: the base has no linears of the names in `config.targets`, or PEFT does not know where its method
            goes.
        ExpertError: the adapter in `start` does not fit.
    """
    torch.manual_seed(config.seed)
    made = _peft(config, _names(model, config), task)
    if isinstance(made, LoraConfig) and not is_quantized(model):
        made._register_custom_module({nn.Linear: LowRankLinear})  # noqa: SLF001 (PEFT documents it under this name)
    try:
        adapted = get_peft_model(model, made)
    except ValueError as error:
        raise ConfigError(
            f"PEFT does not know where {config.method} goes in this base ({error}): "
            "name linears with targets, or choose another method"
        ) from error
    if start is not None:
        _take_over(adapted, start)
    return adapted


def is_quantized(model: Any) -> bool:
    """Return whether the model's weights are held in 4 or 8 bits: then it stays on its device."""
    return bool(getattr(model, "is_quantized", False))


def continued(config: TrainConfig, start: Path) -> TrainConfig:
    """Return the settings with the shape of the adapter in the folder `start`.

    Raises:
        ConfigError: they ask for another shape.
        ExpertError: the adapter is none that can be trained on.
    """
    found = read_config(start)
    kind = str(found.get("peft_type", "")).rpartition(".")[2]
    odd = [key for key in ("rank_pattern", "alpha_pattern", "layers_to_transform", "exclude_modules") if found.get(key)]
    targets = found.get("target_modules")
    if kind != "LORA" or odd or not isinstance(targets, str | list):
        why = f"it has {', '.join(odd)}" if odd else f"it is a {kind or 'nameless'} adapter"
        raise ExpertError(f"{start / ADAPTER_CONFIG} cannot be trained on ({why}): start from another expert")
    method = "dora" if found.get("use_dora") else "rslora" if found.get("use_rslora") else "lora"
    theirs: dict[str, Any] = {
        "method": method,
        "rank": found.get("r"),
        "alpha": float(found.get("lora_alpha", 0)),
        "targets": targets if isinstance(targets, str) else tuple(sorted(targets)),
    }
    plain = TrainConfig()
    differing = [
        f"{name} = {getattr(config, name)!r}, there it is {value!r}"
        for name, value in theirs.items()
        if getattr(config, name) not in (getattr(plain, name), value)
    ]
    if differing:
        raise ConfigError(
            f"a training that starts from {start} has its adapter's shape ({'; '.join(differing)}): leave these out"
        )
    return dataclasses.replace(config, **theirs)


def _take_over(model: Any, start: Path) -> None:
    weights = load_file(start / ADAPTER_WEIGHTS)
    mine = state(model)
    shared = {name: tensor for name, tensor in weights.items() if name in mine and tensor.shape == mine[name].shape}
    missing = [name for name in mine if "lora_" in name and name not in shared]
    if missing or len(shared) < len(weights):
        lost = missing[0] if missing else next(name for name in weights if name not in shared)
        raise ExpertError(
            f"the adapter in {start} does not fit this base ({lost} has no place of that shape): "
            "name the base that it was trained on"
        )
    set_peft_model_state_dict(model, {**mine, **shared})


def state(model: Any) -> dict[str, Tensor]:
    """Return the adapter's tensors under the names that PEFT publishes."""
    return get_peft_model_state_dict(model, save_embedding_layers=False)


def restore(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Give the adapter the tensors that `state` returned of one like it."""
    set_peft_model_state_dict(model, dict(weights))


def targets(model: Any) -> tuple[str, ...]:
    """Return the names of the linears that carry an adapter, in order; none where it stands before the text."""
    return tuple(sorted(getattr(model.peft_config["default"], "target_modules", None) or ()))


def published_config(config: TrainConfig, base: BasePin, names: Sequence[str]) -> LoraConfig:
    """Return PEFT's configuration of a LoRA on the linears `names`, the same for the same training.

    It holds no path of this machine.
    """
    return _published(_lora(config, names, "CAUSAL_LM"), base)


def model_config(model: Any, base: BasePin) -> PeftConfig:
    """Return PEFT's configuration of the model's adapter, to be published: without a path of this machine."""
    return _published(model.peft_config["default"], base)


def _published(config: Any, base: BasePin) -> Any:
    config.base_model_name_or_path, config.revision = base.reference, base.revision
    config.inference_mode = True
    for names in ("target_modules", "modules_to_save"):
        if isinstance(found := getattr(config, names, None), set | list):
            setattr(config, names, sorted(found))
    return config


def _peft(config: TrainConfig, names: Sequence[str] | None, task: str) -> PeftConfig:
    if config.method == "prefix":
        return PrefixTuningConfig(num_virtual_tokens=config.virtual_tokens, task_type=task)
    if config.method == "p-tuning":
        return PromptEncoderConfig(num_virtual_tokens=config.virtual_tokens, task_type=task)
    if config.method == "ia3":
        named = None if names is None else list(names)
        return IA3Config(target_modules=named, feedforward_modules=None if named is None else [], task_type=task)
    return _lora(config, names or (), task)


def _lora(config: TrainConfig, names: Sequence[str], task: str) -> LoraConfig:
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=list(names),
        use_rslora=config.method == "rslora",
        use_dora=config.method == "dora",
        task_type=task,
    )


def _names(model: Any, config: TrainConfig) -> list[str] | None:
    """Return the linears that get an adapter; None where PEFT decides, or where none does.

    Raises:
        ConfigError: the base has no linears of these names.
    """
    names, known = config.target_names(), _linears(model)
    if config.method in VIRTUAL:
        return None
    if names == [ALL_LINEAR]:
        return sorted(known) if config.method in LOW_RANK else None
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(
            f"targets holds {', '.join(unknown)}, but the linears of this base are {', '.join(sorted(known))}: "
            f"name some of those, or {ALL_LINEAR} alone"
        )
    return names


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the bars, advice and warnings of transformers, PEFT and accelerate from a person's screen."""
    loud = [logging.getLogger(name) for name in ("bitsandbytes", "trl")]
    levels = [logger.level for logger in loud]
    with bases.quiet_transformers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(accelerate|bitsandbytes|peft|torch|transformers|trl)(\.|$)")
        for logger in loud:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loud, levels, strict=True):
                logger.setLevel(level)


def _linears(model: Any) -> set[str]:
    """Return the last part of the names of all linears but the head; GPT-2's `Conv1D` is one.

    These are PEFT's `all-linear`, under names that are the same in every layer.
    """
    head = model.get_output_embeddings()
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if module is not head
        and name not in SCORES
        and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    }
