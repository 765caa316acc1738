"""One expert folded into the base: a model of the base's own architecture that needs nothing but transformers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from moehub import files
from moehub.errors import MergeError
from moehub.experts.adapter import Adapter
from moehub.merge.assemble import CONFIG_FILE
from moehub.merge.exporting.fold import Update
from moehub.merge.exporting.loading import copy_text_files, dtype_name, load_exported
from moehub.merge.exporting.mapped import Mapped, mapped
from moehub.merge.exporting.planned import Planned, Twin
from moehub.merge.exporting.streaming import LARGEST_SHARD, Item, place, write_weights
from moehub.merge.load import Parts


@dataclass(frozen=True)
class Dense:
    """The base's own format, with one expert in it."""

    expert: str
    dtype: torch.dtype | None = None
    """Of the weights; None: the base's."""
    largest_shard: int = LARGEST_SHARD
    name: str = "dense"

    def plan(self, parts: Parts) -> Planned:
        """Return what will be written.

        Raises:
            MergeError: there is no such expert, or its base is quantised or lacks a linear that it changes.
        """
        adapter = adapter_of(parts, self.expert)
        with mapped(parts.base.folder) as base:
            items, _ = _items(parts, adapter, base)
            size = sum(one.size for one in place(items, base, self.dtype))
        others = [expert.name for expert in parts.experts if expert.name != self.expert]
        return Planned(
            kind=f"the base with {self.expert} folded in",
            experts=(self.expert,),
            size=size,
            files=(CONFIG_FILE, "model.safetensors" if size <= self.largest_shard else "model-*.safetensors"),
            lost=(
                *((f"the other experts: {', '.join(others)}",) if others else ()),
                "the gate: every token goes to the one expert",
            ),
            notes=("compared with the MoE sent to this expert",),
            write=lambda folder: self._write(parts, adapter, folder),
            twins=(Twin(self.expert, self.expert, load_exported),),
            relation="finetune",
        )

    def _write(self, parts: Parts, adapter: Adapter, folder: Path) -> tuple[str, ...]:
        with mapped(parts.base.folder) as base:
            items, untied = _items(parts, adapter, base)
            write_weights(place(items, base, self.dtype), base, folder, largest=self.largest_shard)
        values = json.loads((parts.base.folder / CONFIG_FILE).read_text(encoding="utf-8"))
        values |= dtype_name(self.dtype) if self.dtype is not None else {}
        values |= {"tie_word_embeddings": False} if untied else {}
        files.write_text(folder / CONFIG_FILE, files.to_json(values))
        copy_text_files(parts.base.folder, folder)
        return ()


def adapter_of(parts: Parts, name: str) -> Adapter:
    """Return the adapter of an expert.

    Raises:
        MergeError: there is none of that name.
    """
    names = [expert.name for expert in parts.experts]
    if name not in names:
        raise MergeError(f"there is no expert {name!r} in {parts.folder}, expected {', '.join(names)}")
    return parts.adapters[names.index(name)]


def _items(parts: Parts, adapter: Adapter, base: Mapped) -> tuple[list[Item], bool]:
    """Return the tensors to write, and whether the output layer no longer shares its weight with the embeddings.

    Raises:
        MergeError: the base is quantised or lacks a linear that the expert changes.
    """
    config = parts.base.load_config()
    if getattr(config, "quantization_config", None):
        raise MergeError("the base's weights are quantised and cannot be added to: name the full ones with --base")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    changes = dict(_changes(adapter, model, base))
    head, embeddings = _name(model, model.get_output_embeddings()), _name(model, model.get_input_embeddings())
    untied = bool(getattr(config, "tie_word_embeddings", False)) and f"{head}.weight" in changes
    items = [Item(name, source=name, change=changes.get(name)) for name in base.spans]
    if untied and f"{head}.weight" not in base:
        items.append(Item(f"{head}.weight", _stored(f"{embeddings}.weight", model, base), changes[f"{head}.weight"]))
    return items, untied


def _changes(adapter: Adapter, model: Any, base: Mapped) -> Iterator[tuple[str, Update]]:
    """Yield the name of each tensor that the adapter changes, as it is stored, with the change."""
    modules = dict(model.named_modules())
    head = _name(model, model.get_output_embeddings())
    for key in adapter.pairs:
        name = _stored(f"{key}.weight", model, base)
        if key not in modules or (name not in base and key != head):
            raise MergeError(
                f"the base's files hold no weight of {key}, which the expert changes: export with --format peft"
            )
        yield name, Update.of(adapter, key, transposed=isinstance(modules[key], Conv1D))


def _stored(name: str, model: Any, base: Mapped) -> str:
    """Return the name in the base's files: those of old checkpoints lack the prefix of the model within."""
    short = name.removeprefix(f"{model.base_model_prefix}.")
    return short if name not in base and short in base else name


def _name(model: nn.Module, wanted: nn.Module) -> str:
    return next((name for name, module in model.named_modules() if module is wanted), "")
