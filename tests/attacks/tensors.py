"""Steps 5 and 6: adapters that do not fit the base, statistics that are none, and updates that destroy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moehub.admission.at_hand import AtHand
from moehub.base import find
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, STATISTICS_FILE
from tests.attacks import Attack, base_at_hand
from tests.attacks.forging import Make, changed, edit, opened, with_config, with_header, with_tensors
from tests.builders import tiny_base, tiny_expert
from tests.world import World

Tensors = dict[str, Tensor]
_LAYER = "base_model.model.model.layers.0"
_A, _B = f"{_LAYER}.self_attn.q_proj.lora_A.weight", f"{_LAYER}.self_attn.q_proj.lora_B.weight"
_M = f"{_LAYER}.self_attn.q_proj.lora_magnitude_vector"


def _with(name: str, change: Callable[[Tensor], Tensor]) -> Make:
    """Return what changes one tensor."""
    return with_tensors(lambda tensors: tensors | {name: change(tensors[name]).contiguous()})


def _put(value: float) -> Callable[[Tensor], Tensor]:
    def put(tensor: Tensor) -> Tensor:
        tensor[-1, -1] = value
        return tensor

    return put


def _renamed(before: str, after: str) -> Make:
    return with_tensors(lambda tensors: {name.replace(before, after): tensor for name, tensor in tensors.items()})


def _bfloat_infinity(tensors: Tensors) -> Tensors:
    return {name: tensor.bfloat16() for name, tensor in tensors.items()} | {_A: _put(torch.inf)(tensors[_A].bfloat16())}


def _without(name: str) -> Make:
    return with_tensors(lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name})


def _wide(folder: Path, world: World) -> Path:
    """Make an expert of a base of other shapes, whose card says that it is of this one."""
    other = world.base.parent / "wide-base"
    base = other if other.is_dir() else tiny_base(other, hidden_size=64, intermediate_size=32)
    tiny_expert(folder, base)
    pin = json.loads((world.experts["law"] / CARD_FILE).read_text(encoding="utf-8"))["base"]
    edit(folder / CARD_FILE, base=pin)
    return folder


def _unknown_linear(folder: Path, world: World) -> Path:
    """Make an expert of a base of more layers, whose card says that it is of this one."""
    other = world.base.parent / "deep-base"
    base = other if other.is_dir() else tiny_base(other, num_hidden_layers=3)
    tiny_expert(folder, base)
    pin = json.loads((world.experts["law"] / CARD_FILE).read_text(encoding="utf-8"))["base"]
    edit(folder / CARD_FILE, base=pin)
    return folder


def _statistics(change: Callable[[Tensors], Tensors]) -> Make:
    """Return what changes the statistics' tensors."""

    def rewrite(folder: Path) -> None:
        path = folder / STATISTICS_FILE
        metadata = opened(path)[0]["__metadata__"]
        changed_tensors = {name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}
        save_file(changed_tensors, path, metadata=metadata)

    return changed(rewrite)


def _said(**facts: object) -> Make:
    """Return what changes what the statistics say of themselves."""

    def rewrite(header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        said = json.loads(header["__metadata__"]["moehub"]) | facts
        return header | {"__metadata__": {"moehub": json.dumps(said)}}, data

    return with_header(rewrite, file=STATISTICS_FILE)


def _noise(sigma: float, *more: str) -> dict[str, object]:
    kinds = ("unigrams", "pairs", "triples", *more)
    return {"epsilon": 1.0, "delta": 1e-6, "clip": 64, "sigma": dict.fromkeys(kinds, sigma)}


def _unsaid(text: str) -> Make:
    return with_header(lambda header, data: (header | {"__metadata__": {"moehub": text}}, data), file=STATISTICS_FILE)


def _unannounced(folder: Path, world: World) -> Path:
    """Make an expert whose metadata say nothing of the triples that lie there."""

    def rewrite(header: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
        said = json.loads(header["__metadata__"]["moehub"])
        del said["triple_bits"]
        return header | {"__metadata__": {"moehub": json.dumps(said)}}, data

    return with_header(rewrite, file=STATISTICS_FILE)(folder, world)


def _reordered(tensors: Tensors) -> Tensors:
    return tensors | {"unigrams.index": tensors["unigrams.index"].flip(0)}


def _overflowing(tensors: Tensors) -> Tensors:
    return tensors | {"unigrams.count": torch.full_like(tensors["unigrams.count"], 2**62)}


def _features(total: Tensor, gram: Tensor, count: int) -> Make:
    """Return what adds sums of features."""

    def rewrite(folder: Path) -> None:
        path = folder / STATISTICS_FILE
        header, _ = opened(path)
        said = json.loads(header["__metadata__"]["moehub"]) | {"features.recipe": "any", "features.count": count}
        sums = {"features.sum": total, "features.gram": gram}
        save_file(load_file(path) | sums, path, metadata={"moehub": json.dumps(said)})

    return changed(rewrite)


def _grown(factor: float) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor * factor if "lora_B" in name else tensor for name, tensor in tensors.items()}


def _even(tensors: Tensors) -> Tensors:
    """Make an update that is large everywhere and stretches no direction more than the others."""
    rank = tensors[_A].shape[0]
    A, B = torch.zeros_like(tensors[_A]), torch.zeros_like(tensors[_B])
    A[:, :rank], B[:rank] = torch.eye(rank), torch.eye(rank) * 10.4
    return tensors | {_A: A, _B: B}


def _spike(tensors: Tensors) -> Tensors:
    """Make an update of a common norm, all of it in one direction."""
    A, B = torch.zeros_like(tensors[_A]), torch.zeros_like(tensors[_B])
    A[0, 0], B[0, 0] = 1.0, 15.2
    return tensors | {_A: A, _B: B}


def _dora(change: Callable[[Tensors], Tensors] = lambda tensors: tensors, *, said: bool = True) -> Make:
    """Return what makes a DoRA of an expert, every row as long as one of the base's, and then changes its tensors."""

    def rewrite(folder: Path) -> None:
        path = folder / ADAPTER_WEIGHTS
        tensors = load_file(path)
        up = {name: tensor for name, tensor in tensors.items() if ".lora_B." in name}
        vectors = {_vector(name): torch.full((len(B),), 0.11) for name, B in up.items()}
        save_file(change(tensors | vectors), path, metadata={"format": "pt"})
        edit(folder / ADAPTER_CONFIG, use_dora=said)

    return changed(rewrite)


def _first(vector: Tensor, value: float) -> Tensor:
    vector[0] = value
    return vector


def _vector(name: str) -> str:
    return name.replace("lora_B.weight", "lora_magnitude_vector")


def _one_target_more(folder: Path) -> None:
    """Name a linear, in the configuration and on the card, that carries no adapter."""
    named = ["q_proj", "v_proj", "down_proj", "o_proj"]
    edit(folder / "adapter_config.json", target_modules=named)
    edit(folder / CARD_FILE, targets=named)


def weights_at_hand(world: World) -> AtHand:
    """Return what is at hand where the base's weights are."""
    offered = base_at_hand(world)
    return AtHand(pin=offered.pin, base_config=offered.base_config, base=find(str(world.base)))


ATTACKS = (
    Attack("whole module of the base", "adapter-tensors",
           with_tensors(lambda tensors: tensors | {"base_model.model.lm_head.weight": torch.zeros(2, 2)})),
    Attack("half of a pair", "adapter-tensors", _without(_B)),
    Attack("pair that does not fit", "adapter-tensors", _with(_B, lambda tensor: tensor[:, :3])),
    Attack("vector for a matrix", "adapter-tensors", _with(_A, torch.Tensor.flatten)),
    Attack("adapter of nothing", "adapter-tensors", with_header(lambda *_: ({}, b""))),
    Attack("magnitudes of no DoRA", "magnitude-vector", _dora(said=False)),
    Attack("DoRA without magnitudes", "magnitude-vector", with_config(use_dora=True)),
    Attack("DoRA that lacks one linear's magnitudes", "magnitude-vector",
           _dora(lambda tensors: {name: tensor for name, tensor in tensors.items() if name != _M})),
    Attack("more magnitudes than outputs", "magnitude-vector", _dora(lambda tensors: tensors | {_M: torch.ones(99)})),
    Attack("magnitudes without a pair", "adapter-tensors",
           _dora(lambda tensors: {name: tensor for name, tensor in tensors.items() if name not in (_A, _B)})),
    Attack("float64", "tensor-dtype", with_tensors(lambda tensors: {k: v.double() for k, v in tensors.items()})),
    Attack("integers", "tensor-dtype", _with(_A, lambda tensor: tensor.int())),
    Attack("rank that is another", "tensor-rank",
           with_tensors(lambda tensors: tensors | {_A: tensors[_A][:2].clone(), _B: tensors[_B][:, :2].contiguous()})),
    Attack("linear that is not named", "targets", _renamed("v_proj", "k_proj")),
    Attack("name that is no linear", "targets", changed(_one_target_more)),
    Attack("layer that the base does not have", "unknown-linear", _unknown_linear),
    Attack("shapes of another base", "linear-shape", _wide),
    Attack("NaN among magnitudes", "finite",
           _dora(lambda tensors: tensors | {_M: torch.full_like(tensors[_M], torch.nan)})),
    Attack("NaN", "finite", _with(_A, _put(torch.nan))),
    Attack("infinity", "finite", _with(_B, _put(-torch.inf))),
    Attack("infinity in bfloat16", "finite", with_tensors(_bfloat_infinity)),
    Attack("NaN in float16", "finite", with_tensors(
        lambda tensors: {key: _put(torch.nan)(tensor.half()) for key, tensor in tensors.items()})),
    Attack("statistics that say nothing", "statistics-metadata", _unsaid("")),
    Attack("statistics nested without end", "statistics-metadata", _unsaid("[" * 5000)),
    Attack("statistics that say too little", "statistics-metadata", _unsaid('{"format": 1}')),
    Attack("statistics of another format", "statistics-metadata", _said(format=2)),
    Attack("2^60 pairs", "statistics-metadata", _said(pair_bits=60)),
    Attack("2^28 pairs", "statistics-metadata", _said(pair_bits=28)),
    Attack("2^60 triples", "statistics-metadata", _said(triple_bits=60)),
    Attack("noise of nothing", "statistics-metadata", _said(private={"epsilon": 1})),
    Attack("noise without end", "statistics-metadata", _said(private=_noise(1e300))),
    Attack("noise of a fourth kind", "statistics-metadata", _said(private=_noise(9.0, "quadruples"))),
    Attack("vocabulary of a billion", "statistics-metadata", _said(vocabulary=10**9)),
    Attack("statistics of another tokenizer", "statistics-tokenizer", _said(tokenizer="0" * 64)),
    Attack("counts of half a token", "statistics-tensors",
           _statistics(lambda tensors: tensors | {"pairs.count": tensors["pairs.count"].double()})),
    Attack("fewer counts than indices", "statistics-tensors",
           _statistics(lambda tensors: tensors | {"pairs.count": tensors["pairs.count"][:-1]})),
    Attack("fewer triples than indices", "statistics-tensors",
           _statistics(lambda tensors: tensors | {"triples.count": tensors["triples.count"][:-1]})),
    Attack("triples that nothing announces", "statistics-tensors", _unannounced),
    Attack("statistics with more in them", "statistics-tensors",
           _statistics(lambda tensors: tensors | {"text": torch.zeros(8, dtype=torch.uint8)})),
    Attack("token beyond the vocabulary", "statistics-counts", _said(vocabulary=20)),
    Attack("pair beyond the buckets", "statistics-counts", _said(pair_bits=2)),
    Attack("triple beyond the buckets", "statistics-counts", _said(triple_bits=2)),
    Attack("token below zero", "statistics-counts",
           _statistics(lambda tensors: tensors | {"unigrams.index": tensors["unigrams.index"] - 1000})),
    Attack("tokens in no order", "statistics-counts", _statistics(_reordered)),
    Attack("counts below zero", "statistics-counts",
           _statistics(lambda tensors: tensors | {"unigrams.count": -tensors["unigrams.count"]})),
    Attack("counts that overflow", "statistics-counts", _statistics(_overflowing)),
    Attack("features of no features", "statistics-tensors",
           _features(torch.zeros(4, dtype=torch.int64), torch.zeros(4, 5, dtype=torch.int64), 10)),
    Attack("features of too many", "feature-sums",
           _features(torch.full((4,), 10**6), torch.eye(4, dtype=torch.int64), 10)),
    Attack("features that are no products", "feature-sums",
           _features(torch.zeros(4, dtype=torch.int64), torch.triu(torch.ones(4, 4, dtype=torch.int64)), 10)),
    Attack("update a thousand times too large", "update-spectrum", with_tensors(_spike)),
    Attack("update that is large everywhere", "update-norm", with_tensors(_even)),
    Attack("row of a huge length", "magnitude-size", _dora(lambda tensors: tensors | {_M: _first(tensors[_M], 100.0)})),
    Attack("rows of a huge length", "magnitude-size", _dora(lambda tensors: tensors | {_M: 10 * torch.ones(32)})),
    Attack("rows that are long beside the base's", "magnitude-size",
           _dora(lambda tensors: tensors | {_M: 2 * torch.ones(32)}), weights_at_hand),
    Attack("row of length zero", "magnitude-size", _dora(lambda tensors: tensors | {_M: _first(tensors[_M], 0.0)})),
    Attack("rows turned round", "magnitude-size", _dora(lambda tensors: tensors | {_M: -tensors[_M]})),
)  # fmt: skip
