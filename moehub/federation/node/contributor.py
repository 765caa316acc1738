"""A contributor's settings as Flower carries them: `flower-supernode --node-config`, flat and in plain values."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moehub import base as bases
from moehub import config
from moehub.card import check_name
from moehub.errors import ConfigError, ExpertError, FederationError
from moehub.federation.settings import Flat, NodeConfig

_SOURCE = "the node's configuration"
_SIMULATION = frozenset({"partition-id", "num-partitions"})
"""Flower's simulation adds these to every node's configuration."""


def to_flower(node: NodeConfig, desk: Path) -> Flat:
    """Return what the SuperNode of a contributor with this desk tells its ClientApps; `from_flower` reads it."""
    data = json.dumps([str(path) for path in node.data], ensure_ascii=False)
    return {**dataclasses.asdict(node), "data": data, "desk": str(desk)}


def from_flower(values: Mapping[str, Any]) -> tuple[NodeConfig, Path]:
    """Return the contributor and its desk from what Flower made of `--node-config`.

    Raises:
        ConfigError: something is missing, unknown, or of the wrong kind.
    """
    given = {name: value for name, value in values.items() if name not in _SIMULATION}
    desk = given.pop("desk", "")
    if not isinstance(desk, str) or not desk:
        raise ConfigError(
            f"{_SOURCE} has desk = {desk!r}, expected the folder that its worker serves: "
            'start it with `moehub node`, or add desk="FOLDER" to --node-config'
        )
    if "data" in given:
        given["data"] = _paths(given["data"])
    node = config.from_mapping(NodeConfig, given, source=_SOURCE)
    try:
        check_name("domain", node.domain)
    except ExpertError as error:
        raise ConfigError(f"{_SOURCE}: {error}") from error
    for name in ("rank", "accumulation", "suppress_below"):
        if getattr(node, name) < 0:
            raise ConfigError(f"{_SOURCE} has {name} = {getattr(node, name)}, expected 0 or more")
    return node, Path(desk)


def base_of(node: NodeConfig, reference: str, revision: str) -> bases.Base:
    """Return the base that a federation names, from where the contributor keeps it.

    Raises:
        BaseModelError: there is none.
        FederationError: the federation's own is a folder, so that only the contributor can say where.
    """
    if not node.base and not revision and not Path(reference).is_dir():
        raise FederationError(
            f"the federation's base {reference!r} comes from no hub, and this node does not say where it keeps it: "
            "name the folder with --base"
        )
    return bases.find(node.base or reference, revision=revision or None)


def _paths(given: Any) -> list[str]:
    """Return the paths in a JSON list; any other text is one path."""
    try:
        paths = json.loads(given) if str(given).lstrip().startswith("[") else [given]
    except ValueError:
        paths = None
    if not isinstance(paths, list) or not paths or not all(isinstance(path, str) and path for path in paths):
        raise ConfigError(f"{_SOURCE} has data = {given!r:.80}, expected a file, or files as a JSON list of paths")
    return paths
