"""What may stand in `adapter_config.json`: the keys that PEFT writes, with the values that an expert can have.

Some of PEFT's keys make it import modules by name or read files of the publisher's choice
(https://github.com/huggingface/peft/issues/3085); others are patterns that are matched against names. None of them
has a use in an expert, so they keep the value that they have where nobody asked for anything.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeGuard

Configuration = Mapping[str, object]
_LONGEST = 256
_MOST_ITEMS = 4096
_MOST = 1e30
_NAME = re.compile(rf"[A-Za-z0-9_.-]{{1,{_LONGEST}}}")
_PATTERN = re.compile(r"\^?(?:[A-Za-z0-9_-]|\\?\.){1,256}\$?")
"""A name, perhaps anchored: nothing that could be repeated, so nothing that takes forever to match."""
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Rule:
    """What one key may hold."""

    holds: Callable[[object], bool]
    expected: str


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Return whether `value` is a finite number of a size that a float has."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST


def _is_integer(value: object) -> bool:
    return type(value) is int and abs(value) <= 1 << 31


def _is_plain(value: object) -> bool:
    return value is None or (isinstance(value, str) and len(value) <= _LONGEST and value.isprintable())


def _is_commit(value: object) -> bool:
    return value is None or (isinstance(value, str) and _COMMIT.fullmatch(value) is not None)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _are_names(value: object) -> bool:
    return isinstance(value, list) and len(value) <= _MOST_ITEMS and all(map(_is_name, value))


def _are_layers(value: object) -> bool:
    return value is None or _is_integer(value) or (isinstance(value, list) and all(map(_is_integer, value)))


def _by_pattern(value: object, holds: Callable[[object], bool]) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= _MOST_ITEMS
        and all(_PATTERN.fullmatch(key) and holds(each) for key, each in value.items())
    )


_FLAG = Rule(_is_flag, "true or false")
_TEXT = Rule(_is_plain, f"at most {_LONGEST} printable characters")
_NAMES = Rule(lambda value: value is None or _is_name(value) or _are_names(value), "names of linears")
_NOTHING = Rule(lambda value: value in (None, {}), "nothing")

GADGETS: Mapping[str, Rule] = {
    "auto_mapping": _NOTHING,
    "corda_config": _NOTHING,
    "eva_config": _NOTHING,
    "loftq_config": _NOTHING,
    "lora_ga_config": _NOTHING,
    "megatron_config": _NOTHING,
    "megatron_core": Rule(lambda value: value in (None, "megatron.core"), "'megatron.core'"),
    "monteclora_config": _NOTHING,
    "revision": Rule(_is_commit, "a commit, or nothing"),
    "velora_config": _NOTHING,
}
"""Keys that import modules, read files or look things up on a hub, and what they hold where they do not."""

FORMS: Mapping[str, Rule] = {
    "alpha_pattern": Rule(lambda value: _by_pattern(value, is_number), "numbers by the names of linears"),
    "base_model_name_or_path": _TEXT,
    "bias": _TEXT,
    "ensure_weight_tying": Rule(lambda value: value is False, "false"),
    "exclude_modules": _NAMES,
    "fan_in_fan_out": _FLAG,
    "inference_mode": _FLAG,
    "init_lora_weights": Rule(lambda value: _is_flag(value) or _is_name(value), "true, false or a name"),
    "layers_pattern": _NAMES,
    "layers_to_transform": Rule(_are_layers, "numbers of layers"),
    "lora_alpha": Rule(is_number, "a finite number"),
    "lora_dropout": Rule(lambda value: is_number(value) and 0 <= value <= 1, "a number between 0 and 1"),
    "peft_type": Rule(_is_name, "LORA"),
    "peft_version": _TEXT,
    "qalora_group_size": Rule(_is_integer, "an integer"),
    "r": Rule(_is_integer, "an integer"),
    "rank_pattern": Rule(lambda value: _by_pattern(value, _is_integer), "integers by the names of linears"),
    "target_modules": Rule(
        lambda value: value == ALL_LINEAR or (_are_names(value) and bool(value)),
        f"a list of names of linears, or {ALL_LINEAR!r}",
    ),
    "task_type": Rule(lambda value: value in (None, "CAUSAL_LM"), "'CAUSAL_LM'"),
    "use_dora": _FLAG,
    "use_rslora": _FLAG,
}
"""What every other key may hold that an expert has a use for."""

REQUIRED = ("lora_alpha", "peft_type", "r", "target_modules")

INABILITIES = frozenset(
    {
        "alora_invocation_tokens",
        "arrow_config",
        "kasa_config",
        "layer_replication",
        "lora_bias",
        "modules_to_save",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_qalora",
    }
)
"""Keys that PEFT writes and that must be unset, because the sparse layer does not compute what they ask for: see
`moehub.experts.adapter.config_faults`."""

KEYS = frozenset({*GADGETS, *FORMS, *INABILITIES})
"""Every key that PEFT writes."""
