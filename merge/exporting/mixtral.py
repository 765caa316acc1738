"""A MoE as Mixtral: every expert's FFN folded, one gate in each layer, in the files that others read.

Mixtral's experts lie one by one (`block_sparse_moe.experts.N.w1` …), which is what transformers, vLLM and llama.cpp's
converter all take; transformers' own fused names are refused by the last.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from moehub import files
from moehub.errors import MergeError, RouterError, listed
from moehub.experts.adapter import Adapter
from moehub.experts.packing import Row
from moehub.merge.assemble import CONFIG_FILE
from moehub.merge.exporting import architecture
from moehub.merge.exporting.fold import Update
from moehub.merge.exporting.gates import solve_gates
from moehub.merge.exporting.loading import copy_text_files, dtype_name, load_exported, load_moe
from moehub.merge.exporting.mapped import mapped
from moehub.merge.exporting.planned import Planned, Twin
from moehub.merge.exporting.streaming import LARGEST_SHARD, Item, place, write_weights
from moehub.merge.exporting.texts import Texts, rows_of
from moehub.merge.load import Parts
from moehub.router.method import NULL

Attention = Literal["refuse", "average", "drop"]
"""What becomes of the experts' changes to attention, which all of Mixtral's experts share."""


@dataclass(frozen=True)
class Mixtral:
    """Mixtral's format."""

    top_k: int | None = None
    """Experts per token; None: as many as the MoE's."""
    attention: Attention = "refuse"
    gate_texts: Texts = field(default_factory=dict)
    """Name of each expert, and "null" where there is one → text that its gates are made of."""
    dtype: torch.dtype | None = None
    """Of the weights; None: the base's."""
    largest_shard: int = LARGEST_SHARD
    name: str = "mixtral"

    def plan(self, parts: Parts) -> Planned:
        """Return what will be written.

        Raises:
            MergeError: the base, or what an expert changes, does not fit into Mixtral's architecture.
            RouterError: there is nothing that the gates could be made of.
        """
        names = columns(parts)
        config = parts.base.load_config()
        with mapped(parts.base.folder) as base:
            architecture.require_like_mixtral(config, base.spans)
            touched = _require_targets(parts, self.attention)
            _require_texts(parts, names, self.gate_texts)
            rows = rows_of(parts.base, self.gate_texts)
            top_k = _top_k(self.top_k, parts.settings.top_k, len(names))
            items = self.items(parts, no_gates(config, len(names)))
            size = sum(one.size for one in place(items, base, self.dtype))
        return Planned(
            kind=f"Mixtral with {len(names)} experts, top {top_k}",
            experts=tuple(expert.name for expert in parts.experts),
            size=size,
            files=(CONFIG_FILE, "model.safetensors" if size <= self.largest_shard else "model-*.safetensors"),
            lost=_lost(parts, top_k, touched, self.attention),
            notes=_notes(parts, names),
            write=lambda folder: self._write(parts, folder, rows, top_k),
            twins=(Twin("mixtral", None, load_exported),),
            tags=("mixtral", "mixture-of-experts"),
        )

    def items(self, parts: Parts, gates: Tensor) -> list[Item]:
        """Return the tensors to write, those made of one tensor of the base beside each other.

        Args:
            parts: the MoE.
            gates: W of each layer, [L, E, H].
        """
        adapters: list[Adapter | None] = [*parts.adapters, *([None] if parts.config.null else [])]
        kept = [
            Item(name, source=name, change=_averaged(parts.adapters, name) if self.attention == "average" else None)
            for name in architecture.kept_tensors(parts.base.load_config())
        ]
        for layer, gate in enumerate(gates):
            block = f"model.layers.{layer}.block_sparse_moe"
            kept.append(Item(f"{block}.gate.weight", value=gate))
            for linear, name in architecture.FFN.items():
                key = f"model.layers.{layer}.mlp.{linear}"
                kept += [
                    Item(f"{block}.experts.{at}.{name}.weight", source=f"{key}.weight", change=_change(adapter, key))
                    for at, adapter in enumerate(adapters)
                ]
        return kept

    def _write(self, parts: Parts, folder: Path, rows: Mapping[str, Sequence[Row]], top_k: int) -> tuple[str, ...]:
        names, config = columns(parts), parts.base.load_config()
        gates, said = _gates(parts, rows, names)
        with mapped(parts.base.folder) as base:
            dtype = self.dtype or base.dtype(architecture.EMBEDDINGS)
            items = self.items(parts, gates.to(dtype))
            write_weights(place(items, base, self.dtype), base, folder, largest=self.largest_shard)
        values = architecture.mixtral_config(config, experts=len(names), top_k=top_k)
        files.write_text(folder / CONFIG_FILE, files.to_json({**values, **dtype_name(dtype)}))
        copy_text_files(parts.base.folder, folder)
        return said


def columns(parts: Parts) -> list[str]:
    """Return the names of Mixtral's experts in order: the MoE's, and last the null expert where there is one."""
    return [expert.name for expert in parts.experts] + ([NULL] if parts.config.null else [])


def no_gates(config: Any, experts: int) -> Tensor:
    """Return gates that have nothing to decide, or that were not made yet."""
    return torch.zeros(config.num_hidden_layers, experts, config.hidden_size)


def _gates(parts: Parts, rows: Mapping[str, Sequence[Row]], names: Sequence[str]) -> tuple[Tensor, tuple[str, ...]]:
    """Return W of each layer, [L, E, H], and what there is to say about them."""
    if len(names) == 1:
        return no_gates(parts.base.load_config(), 1), ()
    gates = solve_gates(load_moe(parts, dtype="auto"), {name: rows[name] for name in names})
    if gates.right is None:
        return gates.weights, ("the gates' texts were too short to keep some of them for measuring the gates",)
    chance = 1 / len(names)
    said = f"the gates send {gates.right:.1%} of the tokens of held-out text to their own expert (chance: {chance:.1%})"
    return gates.weights, (said,)


def _change(adapter: Adapter | None, key: str) -> Update | None:
    if adapter is None or key not in adapter.pairs:
        return None
    return Update.of(adapter, key)


def _averaged(adapters: Sequence[Adapter], name: str) -> Update | None:
    """Return the mean over all experts of what they add to a tensor of the base; who adds nothing counts as zero."""
    key = name.removesuffix(".weight")
    present = [adapter for adapter in adapters if key in adapter.pairs]
    if not present:
        return None
    return Update(tuple((*adapter.pairs[key], adapter.scales[key] / len(adapters)) for adapter in present))


def _require_targets(parts: Parts, attention: Attention) -> list[str]:
    """Return the names of the experts that change attention.

    Raises:
        MergeError: an expert changes what Mixtral's experts cannot hold, or attention was not given up.
    """
    touched, rescaling, faults = [], [], []
    for expert, adapter in zip(parts.experts, parts.adapters, strict=True):
        found = {key: architecture.LINEAR.fullmatch(key) for key in adapter.pairs}
        other = [key for key, match in found.items() if match is None or match["name"] not in _KNOWN[match["part"]]]
        if other:
            faults.append(f"{expert.name} changes {other[0]} ({len(other)} linears): Mixtral has no place for it")
        if any(match is not None and match["part"] == "self_attn" for match in found.values()):
            touched.append(expert.name)
            rescaling += [expert.name] if adapter.magnitudes else []
    if rescaling and attention == "average":
        faults.append(
            f"{', '.join(rescaling)} rescale attention, as DoRA experts, and only low-rank updates are averaged: "
            "use --attention drop"
        )
    if touched and attention == "refuse":
        ways = "--attention drop" if rescaling else "--attention average or --attention drop"
        faults.append(
            f"{', '.join(touched)} change attention, which all of Mixtral's experts share: "
            f"add {ways}, and look at what the parity report says it costs"
        )
    if faults:
        raise MergeError(listed("these experts do not fit into Mixtral's architecture:", faults))
    return touched


_KNOWN: Mapping[str, Sequence[str]] = {"mlp": tuple(architecture.FFN), "self_attn": architecture.ATTENTION}


def _require_texts(parts: Parts, names: Sequence[str], texts: Texts) -> None:
    unknown = [name for name in texts if name not in names]
    if unknown:
        raise RouterError(f"--gate-text {unknown[0]}=…: this MoE has no such expert, expected {', '.join(names)}")
    missing = [name for name in names if name not in texts]
    if not missing or len(names) == 1:
        return
    sums = (
        "; the feature sums that its contributors published are of embeddings and of no layer, so they cannot serve"
        if "lda" in parts.settings.method.split("+")
        else ""
    )
    raise RouterError(
        "Mixtral's gates look at one token's hidden state in each layer, and this MoE's statistics say nothing about "
        f"those{sums}: give some text (a few thousand tokens) of each expert with "
        + " ".join(f"--gate-text {name}=FILE" for name in missing)
    )


def _top_k(asked: int | None, mine: int, experts: int) -> int:
    if asked is not None and not 1 <= asked <= experts:
        raise MergeError(f"--top-k {asked} for {experts} experts, the null expert among them: expected 1 to {experts}")
    return asked or min(mine, experts)


def _lost(parts: Parts, top_k: int, touched: Sequence[str], attention: Attention) -> tuple[str, ...]:
    lost = []
    if len(columns(parts)) > 1:
        lost.append(
            "the MoE's one gate, which reads all tokens so far: Mixtral decides in each layer from one token's hidden "
            "state"
        )
    if top_k > 1:
        lost.append(
            "mixing within each linear: Mixtral mixes the outputs of whole FFNs, which differs wherever several "
            "experts act on a token"
        )
        if parts.settings.threshold > 0:
            lost.append(f"the threshold: weights below {parts.settings.threshold:g} are no longer dropped")
    if touched:
        how = {"average": "their mean was folded into the base's", "drop": "dropped"}[attention]
        lost.append(f"changes to attention, which all experts share ({', '.join(touched)}): {how}")
    idle = [
        expert.name
        for expert, adapter in zip(parts.experts, parts.adapters, strict=True)
        if not any(".mlp." in key for key in adapter.pairs)
    ]
    if idle:
        lost.append(f"all of {', '.join(idle)} that is an expert's own: they change no FFN, so theirs is the base's")
    lost.append("adding and removing experts: that needs the MoE")
    return tuple(lost)


def _notes(parts: Parts, names: Sequence[str]) -> tuple[str, ...]:
    if not parts.config.null:
        return ()
    number = len(names) - 1
    return (f"the null expert is Mixtral's expert {number}, the base's own FFN, which takes memory like any other",)
