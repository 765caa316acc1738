"""What may travel: an expert or a MoE, file by file, checked before it leaves and after it arrives.

An allow-list decides, by kind and name; whatever else lies in a folder or a repo is never sent or fetched.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, Literal

from moehub import files
from moehub.card import (
    CARD_FILE,
    EXPERT_FILES,
    LARGEST,
    LARGEST_TEXT,
    NAME,
    README,
    SIGNATURE_FILE,
    folder_faults,
    read_card,
)
from moehub.errors import ExpertError, HubError, listed
from moehub.hub.model_card import with_front_matter

Kind = Literal["expert", "moe"]
MOE_CONFIG = "config.json"
MOE_LOCK = "merge.lock"
MOE_TYPE = "moehub"
MOE_SIGNATURE = "moe.sig"
SIGNATURES: Mapping[Kind, str] = {"expert": SIGNATURE_FILE, "moe": MOE_SIGNATURE}
"""Kind → the file that holds the publisher's signature over all others, where there is one."""
_EXPERTS = "experts"
_MOE_FOLDERS = ("base", "null")
_MOE_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.(?:json|safetensors|lock|md|jinja|txt|model)")
_CURE = "expected an expert (`moehub train-expert` makes one) or a MoE (`moehub merge` makes one)"


@dataclass(frozen=True)
class Parcel:
    """A folder that may travel, and what of it does."""

    folder: Path
    kind: Kind
    name: str
    """The expert's name, or the MoE folder's."""
    files: tuple[str, ...]
    """Names below the folder, '/'-separated, in order; without the README, which is `readme`."""
    readme: str
    """The model card: the folder's own text, its front matter brought up to date for an expert."""
    notes: tuple[str, ...] = ()
    """What its publisher should know, though nothing forbids it."""

    @property
    def size(self) -> int:
        """Bytes that travel."""
        return sum((self.folder / name).stat().st_size for name in self.files) + len(self.readme.encode())

    def digests(self) -> dict[str, str]:
        """Return the sha256 of every file that travels, in hex."""
        readme = hashlib.sha256(self.readme.encode()).hexdigest()
        return {README: readme, **{name: files.sha256(self.folder / name) for name in self.files}}

    def contents(self) -> dict[str, Path | bytes]:
        """Return everything that travels but a signature, by name: files, and the model card as it travels."""
        found: dict[str, Path | bytes] = {name: self.folder / name for name in self.files}
        found.pop(SIGNATURES[self.kind], None)
        return {**found, README: self.readme.encode()}


def pack(folder: Path) -> Parcel:
    """Return what of `folder` is to be published.

    Raises:
        HubError: it is neither an expert nor a MoE, is not what its cards describe, holds files that do not
            travel, or is a MoE whose base nobody else has; all faults are listed.
    """
    kind = verify(folder)
    names = [name.as_posix() for name in _visible(folder)]
    faults = [f"{name} does not belong in a MoE folder: remove it" for name in names if not travels(kind, name)]
    readme = folder / README
    if kind == "moe":
        faults += _base_faults(_read_config(folder))
        if not readme.is_file():
            faults.append(f"{README} is missing: merge again, or write one")
    if faults:
        raise HubError(listed(f"{folder} cannot be published:", faults))
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else None
    contents = tuple(name for name in names if name != README)
    if kind == "expert":
        card = read_card(folder)
        check_sizes(kind, {name: (folder / name).stat().st_size for name in contents}, str(folder))
        return Parcel(folder, kind, card.name, contents, with_front_matter(card, text))
    return Parcel(folder, kind, folder.absolute().name, contents, text or "", _lock_notes(folder))


def verify(folder: Path) -> Kind:
    """Return what the folder is, after checking the files of its experts against their cards.

    Raises:
        HubError: it is neither an expert nor a MoE, or a file is not the one that its card pins.
    """
    kind = kind_of([name.as_posix() for name in _visible(folder)] if folder.is_dir() else [], str(folder))
    faults = _expert_faults(folder) if kind == "expert" else _moe_faults(folder)
    if faults:
        raise HubError(listed(f"{folder} is not what was published:", faults))
    return kind


def kind_of(names: Iterable[str], source: str) -> Kind:
    """Return what a folder or repo with files of these names is; `source` says where, in errors.

    Raises:
        HubError: it is neither an expert nor a MoE.
    """
    present = set(names)
    if CARD_FILE in present:
        return "expert"
    if {MOE_CONFIG, MOE_LOCK} <= present:
        return "moe"
    raise HubError(f"{source} has no {CARD_FILE} and no {MOE_LOCK}: {_CURE}")


def travels(kind: Kind, name: str) -> bool:
    """Return whether a file of this name, relative to its folder, is part of an expert or a MoE."""
    match kind, name.split("/"):
        case "expert", [file]:
            return file in EXPERT_FILES
        case "moe", [folder, expert, file] if folder == _EXPERTS:
            return NAME.fullmatch(expert) is not None and file in EXPERT_FILES
        case "moe", [folder, file] if folder in _MOE_FOLDERS:
            return _MOE_FILE.fullmatch(file) is not None
        case "moe", [file]:
            return _MOE_FILE.fullmatch(file) is not None or file == MOE_SIGNATURE
    return False


def check_sizes(kind: Kind, sizes: Mapping[str, int], source: str) -> None:
    """Refuse an expert with a file that is larger than any of its kind; `source` says whose, in errors.

    Raises:
        HubError: every such file, listed.
    """
    most = {name: LARGEST.get(name, LARGEST_TEXT) for name in sizes} if kind == "expert" else {}
    faults = [
        f"{name} has {sizes[name]} bytes, expected at most {limit}: ask its publisher for a smaller one"
        for name, limit in sorted(most.items())
        if sizes[name] > limit
    ]
    if faults:
        raise HubError(listed(f"{source} is too large:", faults))


def check_destination(path: Path) -> None:
    """Refuse to replace a folder that holds anything but an expert or a MoE.

    Raises:
        HubError: it holds something else, or is a file.
    """
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.is_dir() and ((path / CARD_FILE).is_file() or (path / MOE_LOCK).is_file()):
        return
    if path.exists():
        raise HubError(f"{path} exists and is neither an expert nor a MoE: choose another folder, or remove it")


def _visible(folder: Path) -> list[Path]:
    """Return the files below a folder, relative to it, without those that are hidden."""
    return [name for name in files.files_below(folder) if not any(part.startswith(".") for part in name.parts)]


def _expert_faults(folder: Path) -> list[str]:
    try:
        card = read_card(folder)
    except ExpertError as error:
        return [str(error)]
    return folder_faults(folder, card)


def _moe_faults(folder: Path) -> list[str]:
    cards = {str(entry.get("name")): entry.get("card") for entry in _read_config(folder)["experts"]}
    experts = folder / _EXPERTS
    present = sorted(path.name for path in experts.iterdir() if path.is_dir()) if experts.is_dir() else []
    if sorted(cards) != present:
        return [f"{MOE_CONFIG} lists the experts {sorted(cards)}, but the folder holds {present}: pull the MoE again"]
    faults = [f"{_EXPERTS}/{name}: {fault}" for name in present for fault in _expert_faults(experts / name)]
    return faults or [
        f"{_EXPERTS}/{name} is not the expert that was merged (its card's sha256 differs): pull the MoE again"
        for name in present
        if files.sha256(experts / name / CARD_FILE) != cards[name]
    ]


def _base_faults(config: dict[str, Any]) -> list[str]:
    base = config.get("base")
    location = str(base.get("location", "")) if isinstance(base, dict) else ""
    if not PurePosixPath(location).is_absolute() and not PureWindowsPath(location).is_absolute():
        return []
    cure = "merge with `--embed-base`, or with a base that is on a hub"
    return [f"its base is the folder {location}, which nobody else has: {cure}"]


def _lock_notes(folder: Path) -> tuple[str, ...]:
    try:
        experts = json.loads((folder / MOE_LOCK).read_text(encoding="utf-8"))["experts"]
        local = [entry["name"] for entry in experts if PurePath(entry["source"]).is_absolute()]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise HubError(f"{folder / MOE_LOCK} is damaged ({error!r}): merge again") from error
    if not local:
        return ()
    names = ", ".join(local)
    return (
        f"{MOE_LOCK} says where on this machine {names} came from: push them first and merge from the hub to avoid it",
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / MOE_CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise HubError(f"{path} is damaged ({error}): pull or merge the MoE again") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    experts = config.get("experts") if isinstance(config, dict) else None
    if kind != MOE_TYPE or not isinstance(experts, list) or not all(isinstance(entry, dict) for entry in experts):
        raise HubError(f"{path} has model_type {kind!r}, expected {MOE_TYPE!r} and a list of experts: {_CURE}")
    return config
