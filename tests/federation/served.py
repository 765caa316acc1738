"""A server's folder and a stand-in for its SuperLink."""

from pathlib import Path

import yaml

from moehub.errors import FederationError
from moehub.federation.deploy.control import Control
from moehub.federation.deploy.registry import Registry
from moehub.federation.deploy.server_folder import ServerFolder, Serving
from moehub.federation.journal import Aggregated, Began

BEGAN = Began("run", "org/base", "ffa", 2, 0)
DONE = Aggregated(1, "law", 2, 1.5, 100, 200, 3.0)


class Flower(Control):
    """A SuperLink that takes everything and remembers it."""

    submitted: list[dict[str, bool]]
    stopped: list[int]
    down: bool

    def __init__(self, *, down: bool = False) -> None:
        super().__init__(Path("home"))
        self.__dict__ |= {"submitted": [], "stopped": [], "down": down}

    def submit(self, app: Path, **changes: bool) -> int:
        if self.down:
            raise FederationError("the server does not run")
        assert (app / "pyproject.toml").exists()
        self.submitted.append(changes)
        return 100 + len(self.submitted)

    def stop(self, run: int) -> bool:
        if self.down:
            raise FederationError("the server does not run")
        self.stopped.append(run)
        return True


def served(path: Path) -> ServerFolder:
    """Return the folder of a server that was started once."""
    found = ServerFolder(path)
    found.serve(Serving("fed.example.org:8443", "", 20_000))
    Registry(found.registry, found.keys).begin()
    return found


def federation(path: Path, base: Path) -> Path:
    """Write the settings of a federation and return their file."""
    path.write_text(yaml.safe_dump({"base": str(base), "rounds": 2, "train": {"rank": 2}}))
    return path
