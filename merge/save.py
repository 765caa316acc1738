"""Write a MoE that is in memory: what was changed since loading, and byte for byte what was not."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from moehub import files
from moehub.card import ADAPTER_WEIGHTS, CARD_FILE
from moehub.errors import MergeError
from moehub.experts.adapter import Adapter
from moehub.experts.dora import Factors
from moehub.experts.folder import Expert, seal
from moehub.hub.measured import MEASURED_FILE
from moehub.hub.parcel import MOE_SIGNATURE
from moehub.merge import tuned as tuning
from moehub.merge.assemble import CONFIG_FILE, EXPERTS_FOLDER, read_tables, write_card
from moehub.merge.load import Parts, read_moe_config, read_tuned, refuse_foreign
from moehub.merge.lock import LOCK_FILE, read_lock
from moehub.merge.merging import residents
from moehub.merge.stack import unstack
from moehub.merge.tuned import TUNED_FILE, TUNED_KEY, Tuned
from moehub.router.gate import load_gate
from moehub.router.layer import MoELinear, StackedLinear
from moehub.router.tuned import TunedGate

_SUMMED = 1e-5
"""How far apart two sums of a row in float32 may lie, as a share: their order may depend on the number of threads."""


def save_parts(parts: Parts, layers: Mapping[str, MoELinear], gate: nn.Module, output: Path) -> None:
    """Write the MoE's folder to `output`, with the adapters as they stand in the sparse layers, and the gate as tuned.

    An expert that was trained since gets a new card, one version higher. Where anything changed, README.md is made
    anew, and a signature or an evaluation, which would no longer hold, is left out.

    Raises:
        MergeError: the gate's tables were changed (they are made from counts; what is learned is added to them),
            something else than a MoE stands at `output`, what was trained is not finite, or a DoRA expert was trained.
    """
    refuse_foreign(output)
    _refuse_changed_tables(parts, gate)
    with files.new_folder(output) as folder:
        shutil.copytree(parts.folder, folder, dirs_exist_ok=True)
        before = files.sha256(folder / CONFIG_FILE)
        cards = {}
        stacked = {key: layer for key, layer in layers.items() if isinstance(layer, StackedLinear)}
        for number, expert in enumerate(parts.experts if stacked else ()):  # on a shelf nothing can change
            tensors = unstack(stacked, number, parts.adapters[number])
            if parts.adapters[number].magnitudes:
                _refuse_changed_dora(expert, parts.adapters[number], tensors, stacked)
                continue
            published = load_file(expert.folder / ADAPTER_WEIGHTS)
            # Loaded in another precision is not trained: compare as the layers hold them.
            if any(
                not torch.equal(tensors[name], tensor.to(tensors[name].dtype)) for name, tensor in published.items()
            ):
                trained = {name: tensors[name].to(tensor.dtype).contiguous() for name, tensor in published.items()}
                cards[expert.name] = _write_trained(expert, trained, folder / EXPERTS_FOLDER / expert.name)
        tuned = _write_tuned(folder, gate)
        if cards or tuned != read_tuned(read_moe_config(folder), folder):
            _describe_again(folder, cards, tuned, output.absolute())
        if files.sha256(folder / CONFIG_FILE) != before:
            for name in (MEASURED_FILE, MOE_SIGNATURE):
                (folder / name).unlink(missing_ok=True)


def _write_tuned(folder: Path, gate: nn.Module) -> Tuned | None:
    """Write what was tuned, or drop it where the gate is the untuned one."""
    if isinstance(gate, TunedGate):
        return tuning.write(folder, gate)
    (folder / TUNED_FILE).unlink(missing_ok=True)
    return None


def _write_trained(expert: Expert, tensors: dict[str, torch.Tensor], place: Path) -> str:
    """Write an expert's new weights and card; return the card's sha256.

    Raises:
        MergeError: a weight is not finite: nobody looks at values again once a card pins them.
    """
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise MergeError(
            f"the expert {expert.name!r} holds values that are not finite, so nothing was written: the training "
            "diverged; load the MoE again and train it with a smaller learning rate"
        )
    (place / ADAPTER_WEIGHTS).unlink()
    save_file(tensors, place / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    seal(place, dataclasses.replace(expert.card, version=expert.card.version + 1))
    return files.sha256(place / CARD_FILE)


def _refuse_changed_dora(
    expert: Expert, adapter: Adapter, tensors: Mapping[str, torch.Tensor], layers: Mapping[str, StackedLinear]
) -> None:
    """Refuse to write a DoRA expert that was changed: from d ⊙ B alone neither B nor d can be told.

    Raises:
        MergeError: its matrices in the layers are not those that were loaded.
    """
    factors = Factors(adapter, {key: layers[key].linear for key in adapter.pairs})
    for key, (A, B) in adapter.pairs.items():
        down, up = (tensors[f"base_model.model.{key}.lora_{part}.weight"] for part in "AB")
        loaded = (factors[key].cpu()[:, None] * B.float()).to(up.dtype)
        number = torch.finfo(up.dtype)
        same = torch.isclose(up, loaded, rtol=_SUMMED + number.eps, atol=number.tiny * number.eps)
        if not (torch.equal(down, A.to(down.dtype)) and bool(same.all())):
            raise MergeError(
                f"the DoRA expert {expert.name!r} was changed in memory ({key}), which cannot be written: load the "
                "MoE again, and train the expert by itself"
            )


def _describe_again(folder: Path, cards: Mapping[str, str], tuned: Tuned | None, output: Path) -> None:
    """Make configuration, lock and README say what was trained; that has no other source than the MoE."""
    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    for entry in config["experts"]:
        entry["card"] = cards.get(entry["name"], entry["card"])
    config["router"].pop(TUNED_KEY, None)
    config["router"] |= {} if tuned is None else {TUNED_KEY: tuned.to_dict()}
    files.write_text(folder / CONFIG_FILE, files.to_json(config))
    lock = read_lock(folder / LOCK_FILE)
    experts = tuple(
        dataclasses.replace(one, card=cards[one.name], source=str(output / EXPERTS_FOLDER / one.name), commit=None)
        if one.name in cards
        else one
        for one in lock.experts
    )
    lock = dataclasses.replace(lock, experts=experts, tuned=None if tuned is None else tuned.sha256)
    files.write_text(folder / LOCK_FILE, lock.to_json())
    write_card(folder, lock, residents(folder, lock), tuned)


def _refuse_changed_tables(parts: Parts, gate: nn.Module) -> None:
    fresh = load_gate(
        read_tables(parts.folder),
        parts.settings,
        names=[expert.name for expert in parts.experts],
        has_null=parts.config.null,
    ).state_dict()
    tables = (gate.prior if isinstance(gate, TunedGate) else gate).state_dict()
    changed = [name for name, tensor in tables.items() if not torch.equal(tensor.cpu(), fresh[name])]
    if changed:
        raise MergeError(
            f"the gate's tables were changed ({changed[0]}), and they follow from counts: load the MoE again, and "
            "learn what is added to them with `moehub tune-router`"
        )
