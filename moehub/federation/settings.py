"""How a federation trains, and who takes part where all nodes run on one machine: the YAML files that people write."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from moehub import config
from moehub.card import check_name
from moehub.errors import ConfigError, ExpertError, listed
from moehub.experts.settings import TrainConfig

Flat: TypeAlias = dict[str, str | int | float | bool]
"""As Flower carries configuration: dotted keys, plain values, nothing else."""

FROZEN_A = frozenset({"ffa", "median", "trimmed", "krum", "multikrum"})
"""Aggregations under which A stays as it was drawn and only B is trained and sent."""
_PER_RUN = ("max_steps", "epochs", "save_every")
_TRAIN = "train."


@dataclass(frozen=True)
class FederationConfig:
    """Settings of one federated run; contradictions are reported all at once."""

    base: str
    """The base that everyone trains on: a folder, or org/name[@rev] on a hub."""
    rounds: int = 3
    """How often the adapters are sent out, trained and aggregated. Few long rounds cost least."""
    steps: int = 50
    """Optimizer steps of each node in each round."""
    aggregation: Literal["ffa", "product", "fedavg", "median", "trimmed", "krum", "multikrum"] = "ffa"
    """How the adapters of a domain become one: see `moehub.federation.aggregation`."""
    clip: bool = True
    """Whether larger updates are scaled down to the median norm of their round and domain."""
    server_rate: float = 1.0
    """Server learning rate: the aggregated change is multiplied by it (FedOpt, Reddi et al. 2021, with plain SGD)."""
    malicious: int = 1
    """Nodes of a domain that krum and multikrum withstand; trimmed leaves out as many at both ends."""
    proximal: float = 0.0
    """FedProx's μ: pulls each node's adapter towards the one that it was sent."""
    noise: float = 0.0
    """Noise multiplier of differential privacy; 0 for none."""
    noise_clip: float = 1.0
    """Norm that every update is clipped to where there is noise."""
    delta: float = 1e-5
    """δ of the (ε, δ) that is printed."""
    min_nodes: int = 1
    """Nodes that each domain waits for before its first round."""
    quorum: float = 0.5
    """Share of a domain's nodes whose replies make a round; with fewer, the round is tried again."""
    deadline: float = 3600.0
    """Seconds after which a round goes on without the nodes that have not replied."""
    retries: int = 2
    """How often a round without quorum is tried again before its domain gives up."""
    wait: float = 600.0
    """Seconds to wait for `min_nodes` nodes."""
    domains: tuple[str, ...] = ()
    """Domains that may take part; none named: whatever the nodes say."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Of the expert: rank, targets, learning rate, batch and all else but the number of steps."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict themselves.

        Raises:
            ConfigError: with every fault.
        """
        rules = {
            "rounds": (self.rounds >= 1, "at least 1"),
            "steps": (self.steps >= 1, "at least 1"),
            "server_rate": (
                self.server_rate == 1 or (0 < self.server_rate < float("inf") and self.noise == 0),
                "above 0, and 1 where there is noise",
            ),
            "malicious": (self.malicious >= 0, "0 or more"),
            "proximal": (0 <= self.proximal < float("inf"), "0 or more"),
            "noise": (
                self.noise == 0 or (0 < self.noise < float("inf") and self.aggregation == "ffa"),
                "0 or more, and 0 with any aggregation but ffa",
            ),
            "noise_clip": (0 < self.noise_clip < float("inf"), "above 0"),
            "delta": (0 < self.delta < 1, "between 0 and 1"),
            "min_nodes": (self.min_nodes >= 1, "at least 1"),
            "quorum": (0 < self.quorum <= 1, "a share: above 0, at most 1"),
            "deadline": (0 < self.deadline < float("inf"), "above 0"),
            "retries": (self.retries >= 0, "0 or more"),
            "wait": (0 <= self.wait < float("inf"), "0 or more"),
        }
        faults = [
            f"{name} = {getattr(self, name)!r}, expected {expected}"
            for name, (holds, expected) in rules.items()
            if not holds
        ]
        if self.train.private:
            faults.append(
                f"train.private = {self.train.private:g}, expected 0: the nodes' counts are added, and their noise "
                "would be too; suppress_below is what protects them"
            )
        for name, only in (("method", "lora"), ("quantize", "none")):
            if (value := getattr(self.train, name)) != only:
                faults.append(f"train.{name} = {value!r}, expected {only!r}: that is what can be aggregated")
        for domain in self.domains:
            try:
                check_name("domain", domain)
            except ExpertError as error:
                faults.append(str(error))
        if faults:
            raise ConfigError(listed("a federation cannot run with these settings:", faults))

    @property
    def frozen_a(self) -> bool:
        """Whether A stays as it was drawn and only B is trained and sent."""
        return self.aggregation in FROZEN_A


@dataclass(frozen=True)
class NodeConfig:
    """One contributor, as a node on its own machine or as an entry of `nodes.yaml`."""

    domain: str
    """What its text is about."""
    data: tuple[Path, ...]
    """Its text; files that `moehub train-expert --data` takes."""
    name: str = ""
    """What it is called on its own machine; published only with `credit`."""
    credit: bool = False
    """Whether the name may be published with the expert."""
    base: str = ""
    """Where it keeps the base; empty: as the federation names it."""
    rank: int = 0
    """Its own rank, where `product` aggregates and its memory is small; 0: the federation's."""
    accumulation: int = 0
    """As in `TrainConfig`, where its memory is small; 0: the federation's."""
    gradient_checkpointing: bool = False
    """As in `TrainConfig`."""
    suppress_below: int = 3
    """Counts below this never leave it, whatever the federation asks for."""


@dataclass(frozen=True)
class Gathering:
    """A `nodes.yaml`: a federation whose nodes all run on this machine."""

    federation: FederationConfig
    nodes: tuple[NodeConfig, ...]


def read_federation(file: Path, **changes: Any) -> FederationConfig:
    """Return the settings in a YAML file, `nodes` left aside; `changes` that are not None override them.

    A change of what is below `train` is named with a dot, as `train.rank`.

    Raises:
        ConfigError: the file cannot be read, or holds unknown or contradicting settings.
    """
    values = {key: value for key, value in config.read_yaml(file).items() if key != "nodes"}
    return _federation(values, changes, source=str(file), folder=file.parent)


def read_gathering(file: Path, **changes: Any) -> Gathering:
    """Return the federation and the nodes in a YAML file; paths in it are relative to the file.

    Raises:
        ConfigError: the file cannot be read, names no nodes, or holds unknown or contradicting settings.
    """
    values = config.read_yaml(file)
    entries = values.pop("nodes", None)
    if not isinstance(entries, list) or not entries:
        raise ConfigError(f"{file} names no nodes, expected `nodes:` with a list of entries of domain and data")
    nodes = tuple(_node(entry, f"{file}: node {place}", file.parent) for place, entry in enumerate(entries, 1))
    names = [node.name for node in nodes if node.name]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{file} names several nodes {', '.join(repeated)}: give each a name of its own")
    return Gathering(_federation(values, changes, source=str(file), folder=file.parent), nodes)


def _federation(
    values: Mapping[str, Any], changes: Mapping[str, Any], *, source: str, folder: Path
) -> FederationConfig:
    merged = {**values, **{key: value for key, value in changes.items() if value is not None}}
    train = merged.pop("train", None) or {}
    if isinstance(train, dict):
        named = [key for key in merged if key.startswith(_TRAIN)]
        train = {**train, **{key.removeprefix(_TRAIN): merged.pop(key) for key in named}}
    if isinstance(train, dict) and (given := [key for key in _PER_RUN if key in train]):
        raise ConfigError(f"{source}: train holds {', '.join(given)}, but a federation sets `rounds` and `steps`")
    settings = config.from_mapping(TrainConfig, train, source=f"{source}: train")
    if isinstance(merged.get("base"), str) and (folder / merged["base"]).is_dir():
        merged["base"] = str((folder / merged["base"]).absolute())
    return config.from_mapping(FederationConfig, {**merged, "train": settings}, source=source)


def _node(entry: Any, source: str, folder: Path) -> NodeConfig:
    if isinstance(entry, dict) and isinstance(entry.get("data"), str):
        entry = {**entry, "data": [entry["data"]]}
    node = config.from_mapping(NodeConfig, entry, source=source)
    try:
        check_name("domain", node.domain)
    except ExpertError as error:
        raise ConfigError(f"{source}: {error}") from error
    data = tuple((folder / path.expanduser()).absolute() for path in node.data)
    if missing := [str(path) for path in data if not path.is_file()]:
        raise ConfigError(f"{source}: there is no file {', '.join(missing)}")
    base = str((folder / node.base).absolute()) if node.base and (folder / node.base).is_dir() else node.base
    return dataclasses.replace(node, data=data, base=base)


def flatten(settings: FederationConfig) -> Flat:
    """Return the settings as Flower carries them; what is not set is left out."""
    values = dataclasses.asdict(settings)
    train = values.pop("train")
    flat = {**values, **{_TRAIN + name: value for name, value in train.items() if name not in _PER_RUN}}
    return {
        name: json.dumps(value) if isinstance(value, (list, tuple)) else value
        for name, value in flat.items()
        if value is not None
    }


def unflatten(flat: Mapping[str, Any]) -> FederationConfig:
    """Return the settings that `flatten` wrote; keys of others are passed over.

    Raises:
        ConfigError: a value is of the wrong kind, or contradicts another.
    """
    names = {each.name for each in dataclasses.fields(FederationConfig)} - {"train"}
    trained = {each.name for each in dataclasses.fields(TrainConfig)} - set(_PER_RUN)
    train = {
        name.removeprefix(_TRAIN): _unlisted(value)
        for name, value in flat.items()
        if name.startswith(_TRAIN) and name.removeprefix(_TRAIN) in trained
    }
    values = {name: _unlisted(value) for name, value in flat.items() if name in names}
    settings = config.from_mapping(TrainConfig, train, source="the run's configuration")
    return config.from_mapping(FederationConfig, {**values, "train": settings}, source="the run's configuration")


def _unlisted(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value
