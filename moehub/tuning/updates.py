"""Tuning among contributors who cannot pool text: each sends what changed in one local round, and the mean is taken.

An update is a safetensors file of a few kilobytes: how far each parameter went from where the MoE's gate stands, and
facts about it; no text. The mean, weighted by tokens, is the next gate (McMahan et al. 2017, "Communication-efficient
learning of deep networks from decentralized data", FedAvg with one local round). Updates come from strangers: each is
checked, and none pulls harder than the median of three or more.

Shapes: E columns of the gate, D feature dimensions.
"""

import dataclasses
import hashlib
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from moehub import config, files
from moehub.errors import ConfigError, FederationError
from moehub.experts.features import MOST_DIMENSIONS, Recipe
from moehub.merge.assemble import ROUTER_FILE
from moehub.merge.load import Parts
from moehub.merge.tuned import tensor_faults
from moehub.router.tuned import OpenGate

_FORMAT = 1
_METADATA = "moehub"
_HEADER = 1 << 16
"""Bytes that a file may have beside its values."""
_MOST_TOKENS = 1 << 40
_FARTHEST = {"number": 8.0, "bias": 100.0, "weight": 100.0}
"""A change beyond this is no polish: e^8 times a number, 100 nats."""
_LEAST = 3
"""Below this many updates a median says nothing about who is an outlier."""


@dataclass(frozen=True)
class UpdateFacts:
    """What an update says about itself."""

    moe: str
    """Fingerprint of the MoE that it starts from."""
    tokens: int
    """Learned: its weight in the mean."""
    seed: int
    numbers: bool = True
    """Whether the gate's numbers were learned."""
    recipe: str | None = None
    """Of the features that the gate reads, where it reads any."""
    format: int = _FORMAT


@dataclass(frozen=True)
class Update:
    """One contributor's round."""

    path: Path
    facts: UpdateFacts
    change: Mapping[str, Tensor]
    """Name of a parameter → how far it went, float64."""

    @property
    def norm(self) -> float:
        """The Euclidean norm over all values."""
        return math.sqrt(sum(float(tensor.square().sum()) for tensor in self.change.values()))


@dataclass(frozen=True)
class Share:
    """What an update has to do with the mean."""

    update: Update
    share: float
    """Its part of all tokens."""
    scale: float
    """What it was multiplied by, so that it pulls no harder than the median."""


def fingerprint(parts: Parts) -> str:
    """Return the sha256 of what decides a MoE's answers, wherever its base lies: base, experts, router and tables."""
    config = parts.config
    decisive = {
        "base": {key: config.base.get(key) for key in ("digest", "tokenizer")},
        "experts": [[entry["name"], entry["card"]] for entry in config.experts],
        "router": config.router,
        "null": config.null,
        "tables": files.sha256(parts.folder / ROUTER_FILE),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def write(path: Path, gate: OpenGate, *, moe: str, tokens: int, seed: int) -> None:
    """Write what was learned in a round to a file, whole or not at all."""
    recipe = gate.correction.recipe
    facts = UpdateFacts(moe, tokens, seed, len(gate.shifts) > 0, None if recipe is None else recipe.name())
    # One entry: safetensors writes several in an order of its own.
    metadata = {_METADATA: json.dumps(dataclasses.asdict(facts), sort_keys=True)}
    tensors = {name: tensor.reshape(tensor.shape or (1,)).contiguous() for name, tensor in gate.change().items()}
    with files.new_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def read_facts(path: Path) -> UpdateFacts:
    """Return what an update says about itself.

    Raises:
        FederationError: it is no update, or of another format.
    """
    try:
        if path.stat().st_size > (1 << 30):
            raise FederationError(f"{path} has {path.stat().st_size} bytes, which no update has: leave it out")
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {})[_METADATA])
        if isinstance(values, dict) and values.get("format") != _FORMAT:
            raise FederationError(f"{path} has format {values.get('format')!r:.40}, expected {_FORMAT}: update moehub")
        facts = config.from_mapping(UpdateFacts, values, source=str(path))
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError, ConfigError) as error:
        raise FederationError(
            f"{path} is no update ({error}): expected a file that `moehub tune-router MOE --update` wrote"
        ) from error
    if not 1 <= facts.tokens <= _MOST_TOKENS:
        raise FederationError(f"{path} says that it learned {facts.tokens} tokens, expected between 1 and 2^40")
    return facts


def read(path: Path, gate: OpenGate, *, moe: str) -> Update:
    """Return an update of a gate, checked.

    Raises:
        FederationError: it is not of this MoE, or a part of it is missing, too large or not finite.
    """
    facts = read_facts(path)
    if facts.moe != moe:
        raise FederationError(
            f"{path} is an update of another MoE ({facts.moe[:12]!r}, this is {moe[:12]}): average the updates of one "
            "round with the MoE that they started from"
        )
    mine = gate.correction.recipe
    if (facts.recipe, facts.numbers) != (None if mine is None else mine.name(), len(gate.shifts) > 0):
        raise FederationError(
            f"{path} was tuned with other `numbers` or `correction` than the others: tune it with the same settings"
        )
    shapes = {name: tuple(now.shape) or (1,) for name, now in gate.learned().items()}
    if path.stat().st_size > 8 * sum(math.prod(shape) for shape in shapes.values()) + _HEADER:
        raise FederationError(f"{path} is larger than an update of this MoE can be: leave it out")
    tensors = load_file(path)
    faults = tensor_faults(tensors, shapes, torch.float64)
    faults += [] if faults else _far(tensors)
    if faults:
        raise FederationError(f"{path} is no update of this MoE: {'; '.join(faults[:3])}")
    return Update(path, facts, {name: tensors[name].reshape(now.shape) for name, now in gate.learned().items()})


def recipe_of(facts: Sequence[UpdateFacts]) -> int | None:
    """Return the dimensions of the features that updates read, None where they read none.

    Raises:
        FederationError: it is no recipe that tuning uses.
    """
    named = next((one.recipe for one in facts if one.recipe is not None), None)
    if named is None:
        return None
    for dimensions in range(1, MOST_DIMENSIONS + 1):
        if Recipe(dimensions).name() == named:
            return dimensions
    raise FederationError(f"an update reads features by the recipe {named!r:.80}, which tuning does not use")


def mean(updates: Sequence[Update]) -> tuple[dict[str, Tensor], list[Share]]:
    """Return Σ share · scale · change, float64, and each update's part in it."""
    norms = [update.norm for update in updates]
    limit = statistics.median_low(norms) if len(norms) >= _LEAST else math.inf
    total = sum(update.facts.tokens for update in updates)
    shares = [
        Share(update, update.facts.tokens / total, limit / norm if norm > limit else 1.0)
        for update, norm in zip(updates, norms, strict=True)
    ]
    names = updates[0].change
    summed = {name: sum(one.share * one.scale * one.update.change[name] for one in shares) for name in names}
    return {name: torch.as_tensor(value) for name, value in summed.items()}, shares


def _far(tensors: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} goes {float(tensor.abs().max()):.3g} far, and a polish at most {farthest:g}"
        for name, tensor in sorted(tensors.items())
        if tensor.numel() and float(tensor.abs().max()) > (farthest := _FARTHEST[name.split("/")[0]])
    ]
