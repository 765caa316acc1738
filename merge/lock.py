"""`merge.lock`: exactly what went into a MoE, so that `moehub merge merge.lock` makes it again."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub import config, files
from moehub.card import BasePin
from moehub.errors import ConfigError, MergeError
from moehub.router.settings import RouterSettings

LOCK_FILE = "merge.lock"
FORMAT = 1


@dataclass(frozen=True)
class LockedExpert:
    """One expert at one state."""

    name: str
    source: str
    """`org/name`, or the folder's absolute path."""
    commit: str | None
    """The hub's commit; None for a folder."""
    card: str
    """sha256 of `expert.json`, which pins every other file."""


@dataclass(frozen=True)
class LockedNull:
    """The null expert at one state."""

    source: str
    sha256: str
    """Of the text, or of the statistics file, that it was made from."""


@dataclass(frozen=True)
class Lock:
    """Everything that decides the bytes of a MoE folder."""

    base: BasePin
    location: str
    """What `from_pretrained` takes to find the base."""
    embed_base: bool
    router: RouterSettings
    experts: tuple[LockedExpert, ...]
    """In canonical order: by name."""
    null: LockedNull | None = None
    tuned: str | None = None
    """sha256 of `tuned.safetensors`, where the gate was tuned: then the MoE cannot be made from this lock alone."""
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the lock as the text of `merge.lock`."""
        values = dataclasses.asdict(self)
        if self.tuned is None:
            del values["tuned"]
        return files.to_json(values)


def read_lock(path: Path) -> Lock:
    """Return the lock at `path`.

    Raises:
        MergeError: it cannot be read or does not have format 1.
    """
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values.get("format") != FORMAT:
            raise MergeError(f"{path} has format {values.get('format')!r}, expected {FORMAT}: update moehub")
        kinds = {"base": BasePin, "router": RouterSettings, "null": LockedNull}
        parts: dict[str, Any] = {
            key: config.from_mapping(kind, values[key], source=f"{path}: {key}")
            for key, kind in kinds.items()
            if isinstance(values.get(key), dict)
        }
        parts["experts"] = tuple(
            config.from_mapping(LockedExpert, one, source=f"{path}: experts") for one in values.get("experts", [])
        )
        return config.from_mapping(Lock, {**values, **parts}, source=str(path))
    except (OSError, ValueError, RecursionError, AttributeError, TypeError, ConfigError) as error:
        raise MergeError(
            f"{path} is no {LOCK_FILE} that can be used ({error}): merge again from the experts"
        ) from error
