"""Open a MoE folder: everything but the weights of the base, checked."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub import base as bases
from moehub import config as settings_loader
from moehub import files
from moehub.base import Base
from moehub.card import CARD_FILE
from moehub.errors import BaseModelError, ConfigError, MergeError
from moehub.experts.adapter import Adapter, map_adapter
from moehub.experts.folder import Expert, open_expert
from moehub.merge import tuned as tuning
from moehub.merge.assemble import BASE_FOLDER, CONFIG_FILE, EXPERTS_FOLDER, read_tables
from moehub.merge.configuration import MoehubConfig
from moehub.merge.tuned import TUNED_KEY, Tuned
from moehub.router.arrow import ArrowGate
from moehub.router.gate import PosteriorGate, load_gate
from moehub.router.settings import RouterSettings
from moehub.router.tuned import TunedGate

_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")


@dataclass(frozen=True)
class Parts:
    """What a MoE folder holds."""

    folder: Path
    config: MoehubConfig
    base: Base
    experts: tuple[Expert, ...]
    adapters: tuple[Adapter, ...]
    gate: PosteriorGate | ArrowGate | TunedGate
    settings: RouterSettings
    """Of the untuned gate."""


def load_parts(
    reference: str, *, base: str | None = None, tuned: bool = True, hub_options: Mapping[str, Any] | None = None
) -> Parts:
    """Return the parts of the MoE in a folder or a hub's repo; `tuned` is whether its gate is as it was tuned.

    Raises:
        MergeError: it is no MoE, or a part is missing, changed or damaged.
        ExpertError: an expert is not the one its card pins.
        BaseModelError: the base is missing or is another one.
    """
    folder = _folder(reference, hub_options or {})
    config = read_moe_config(folder)
    settings = router_settings(config, folder)
    experts = tuple(open_expert(folder / EXPERTS_FOLDER / entry["name"]) for entry in config.experts)
    for entry, expert in zip(config.experts, experts, strict=True):
        if files.sha256(expert.folder / CARD_FILE) != entry["card"]:
            raise MergeError(f"the expert {expert.name!r} in {folder} is not the one that was merged: merge again")
    return Parts(
        folder,
        config,
        find_base(config, folder, base),
        experts,
        tuple(map_adapter(expert) for expert in experts),
        _gate(folder, config, settings, [expert.name for expert in experts], tuned=tuned),
        settings,
    )


def require_trainable(parts: Parts) -> None:
    """Refuse to train DoRA experts.

    Raises:
        MergeError: there are some: what the layers hold of them depends on the lengths of rows, which training changes.
    """
    fixed = [one.name for one, adapter in zip(parts.experts, parts.adapters, strict=True) if adapter.magnitudes]
    if fixed:
        raise MergeError(
            f"{', '.join(fixed)} of {parts.folder} cannot be trained inside a MoE, as DoRA experts: load the MoE "
            "without trainable=True, or remove them"
        )


def _gate(
    folder: Path, config: MoehubConfig, settings: RouterSettings, names: list[str], *, tuned: bool
) -> PosteriorGate | ArrowGate | TunedGate:
    tables, record = read_tables(folder), read_tuned(config, folder)
    if record is None or not tuned:
        return load_gate(tables, settings, names=names, has_null=config.null)
    return tuning.load(folder, record, tables, settings, names, null=config.null)


def is_moe(folder: Path) -> bool:
    """Return whether a folder is a MoE's."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        return isinstance(values, dict) and values.get("model_type") == MoehubConfig.model_type
    except (OSError, ValueError, RecursionError):
        return False


def refuse_foreign(output: Path) -> None:
    """Refuse to write a MoE over something else.

    Raises:
        MergeError: `output` is a file, or a folder that holds something and is no MoE.
    """
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not is_moe(output))):
        raise MergeError(f"{output} exists and is no MoE: choose another folder, or move it away")


def read_moe_config(folder: Path) -> MoehubConfig:
    """Return the configuration of the MoE in `folder`.

    Raises:
        MergeError: there is no MoE.
    """
    if not is_moe(folder):
        raise MergeError(f"{folder} is no MoE: expected a folder that `moehub merge` made")
    return MoehubConfig.from_dict(json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")))


def router_settings(config: MoehubConfig, folder: Path) -> RouterSettings:
    """Return the settings of the router, before any tuning.

    Raises:
        MergeError: they are not those of this version.
    """
    try:
        values = {name: value for name, value in config.router.items() if name != TUNED_KEY}
        return settings_loader.from_mapping(RouterSettings, values, source=f"{folder}: router")
    except ConfigError as error:
        raise MergeError(str(error)) from error


def read_tuned(config: MoehubConfig, folder: Path) -> Tuned | None:
    """Return how the gate of a MoE was tuned, or None.

    Raises:
        MergeError: what its configuration says about it is damaged.
    """
    values = config.router.get(TUNED_KEY)
    return None if values is None else tuning.parse(values, f"{folder}: router.{TUNED_KEY}")


def find_base(config: MoehubConfig, folder: Path, override: str | None) -> Base:
    """Return the base of a MoE, checked by its digest.

    Raises:
        BaseModelError: it is missing or is another one.
    """
    pin = config.base
    location = override or pin["location"]
    if override is None and location == BASE_FOLDER:
        location = str(folder / BASE_FOLDER)
    try:
        found = bases.find(location, revision=pin["revision"])
    except BaseModelError as error:
        raise BaseModelError(f"{error}. If the base of {folder} is elsewhere, name it with --base") from error
    found.require(pin["digest"], otherwise="it is not the one these experts were trained on")
    return dataclasses.replace(found, reference=pin["reference"])


def _folder(reference: str, hub_options: Mapping[str, Any]) -> Path:
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    options = {key: value for key, value in hub_options.items() if key in _HUB_OPTIONS and value is not None}
    try:
        return Path(snapshot_download(reference, **options))
    except (OSError, ValueError) as error:
        raise MergeError(f"there is no MoE {reference}, neither a folder nor on the hub ({error})") from error
