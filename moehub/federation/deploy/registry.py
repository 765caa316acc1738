"""The registered nodes of a server: names and domains in one file, keys in a folder beside it."""

import json
from dataclasses import dataclass
from pathlib import Path

from moehub import config, files
from moehub.errors import ConfigError, FederationError
from moehub.federation.server.roster import Registered


@dataclass(frozen=True)
class Registry:
    """Who may take part; the run reads the file again whenever it changes."""

    file: Path
    keys: Path
    """Folder of `NODE.pub`, where NODE is Flower's id."""

    def nodes(self) -> dict[int, Registered]:
        """Return Flower's id of each registered node → what it is registered as.

        Raises:
            FederationError: the file cannot be read.
        """
        try:
            values = json.loads(self.file.read_text(encoding="utf-8"))
            return {int(node): config.from_mapping(Registered, each, source=node) for node, each in values.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, ConfigError) as error:
            raise FederationError(f"{self.file} cannot be read ({error}): restore it from a backup") from error

    def begin(self) -> None:
        """Make an empty registry where there is none."""
        self.keys.mkdir(parents=True, exist_ok=True)
        if not self.file.exists():
            self._write({})

    def named(self, name: str) -> int | None:
        """Return the node that is registered under a name."""
        return next((node for node, each in self.nodes().items() if each.name == name), None)

    def owner(self, key: str) -> int | None:
        """Return the node that a public key was registered for."""
        found = (path for path in self.keys.glob("*.pub") if path.read_text(encoding="utf-8").strip() == key)
        return next((int(path.stem) for path in found), None)

    def add(self, node: int, registered: Registered, key: str) -> None:
        """Register a node, or change what it is registered as."""
        self._write({**self.nodes(), node: registered})
        files.write_text(self.keys / f"{node}.pub", f"{key}\n")

    def remove(self, node: int) -> None:
        """Forget a node; its key opens nothing any more."""
        (self.keys / f"{node}.pub").unlink(missing_ok=True)
        self._write({other: each for other, each in self.nodes().items() if other != node})

    def _write(self, nodes: dict[int, Registered]) -> None:
        values = {str(node): {"name": each.name, "domain": each.domain} for node, each in nodes.items()}
        files.write_text(self.file, files.to_json(values))
