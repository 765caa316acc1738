"""The replies of the round in progress, on disk as soon as they are accepted.

So a server that is started again does not ask those nodes twice, and memory holds one reply at a time. Each is one
safetensors file named after its task, with what was said about it as JSON in its metadata.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save_file

from moehub import config, files
from moehub.errors import ConfigError

T = TypeVar("T")
_METADATA = "moehub"
_SUFFIX = ".safetensors"


@dataclass(frozen=True)
class Sender:
    """The node that sent a reply."""

    key: str
    label: str
    name: str
    """Empty unless its owner agreed to be named."""


@dataclass(frozen=True)
class Stored:
    """An accepted reply on disk."""

    path: Path
    sender: Sender
    said: dict[str, Any]

    @property
    def task(self) -> str:
        """The task that it answers."""
        return self.path.stem

    def facts(self, kind: type[T]) -> T:
        """Return what was said, as one of the dataclasses in `moehub.federation.messages`."""
        return config.from_mapping(kind, self.said, source=str(self.path))

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return what came along."""
        return load_file(self.path)


@dataclass(frozen=True)
class Replies:
    """The folder of accepted replies."""

    folder: Path

    def keep(self, sender: Sender, facts: Any, arrays: Mapping[str, np.ndarray[Any, Any]] | None = None) -> Stored:
        """Write a reply whole, or not at all."""
        path, said = self.folder / f"{facts.task}{_SUFFIX}", dataclasses.asdict(facts)
        # One entry: safetensors writes several in an order of its own.
        metadata = {_METADATA: json.dumps({"sender": dataclasses.asdict(sender), "said": said}, sort_keys=True)}
        with files.new_file(path) as temporary:
            save_file(dict(arrays or {}), temporary, metadata=metadata)
        return Stored(path, sender, said)

    def stored(self) -> list[Stored]:
        """Return all replies, in the order of their tasks; what was cut short is passed over."""
        return [found for path in sorted(self.folder.glob(f"*{_SUFFIX}")) if (found := _read(path))]

    def retain(self, kept: Iterable[Stored]) -> None:
        """Forget every reply but those of `kept`, and what a write that was cut short left behind."""
        paths = {each.path for each in kept}
        for path in self.folder.glob("*"):
            if path not in paths:
                path.unlink(missing_ok=True)


def _read(path: Path) -> Stored | None:
    try:
        with safe_open(path, framework="numpy") as file:
            values = json.loads(file.metadata()[_METADATA])
        return Stored(path, config.from_mapping(Sender, values["sender"], source=str(path)), values["said"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, ConfigError):
        return None
