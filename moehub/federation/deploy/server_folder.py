"""A server's folder: what it serves, who was registered, and what it runs; every `moehub federate` command reads it.

server.json    where and how it serves               tls/     its certificates
registry.json  node id → name, domain                keys/    public keys of the registered nodes
run.json       the run that it does, or did last     runs/    one folder for each run
.flower/       Flower's state, logs, pids            bundle/  the app of the run
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from moehub import config, files
from moehub.errors import ConfigError, FederationError
from moehub.federation.deploy.place import PLACE

T = TypeVar("T")
_SERVER, _RUN = "server.json", "run.json"


@dataclass(frozen=True)
class Serving:
    """Where and how a server serves, as it was last started."""

    address: str
    """HOST:PORT that contributors are told."""
    authority: str
    """File of the authority that contributors are told; empty: one that every system trusts, or there is no TLS."""
    port: int
    """Of the SuperLink, on loopback."""
    insecure: bool = False
    behind_proxy: bool = False


@dataclass(frozen=True)
class Job:
    """A run that was handed to the server."""

    number: int
    """From 1, in this folder."""
    flower: int
    """Flower's id of it, a new one each time that it is handed over."""
    output: str
    """The folder that it writes to."""
    since: int
    """Bytes of the journal that an earlier run wrote."""
    outcome: str = ""
    """How it ended; empty: it has not."""


@dataclass(frozen=True)
class ServerFolder:
    """A server's folder."""

    path: Path

    @property
    def place(self) -> Path:
        """The folder of Flower's processes."""
        return self.path / PLACE

    @property
    def served(self) -> bool:
        """Whether a server was ever started here; the output of `moehub federate up` has none."""
        return (self.path / _SERVER).exists()

    @property
    def registry(self) -> Path:
        """The file that says which node is registered for what."""
        return self.path / "registry.json"

    @property
    def keys(self) -> Path:
        """The folder of the registered nodes' public keys."""
        return self.path / "keys"

    @property
    def bundle(self) -> Path:
        """The folder of the app that is run."""
        return self.path / "bundle"

    @property
    def tls(self) -> Path:
        """The folder of the certificates that the server made itself."""
        return self.path / "tls"

    def run(self, number: int) -> Path:
        """Return the folder of a run whose person named no other."""
        return self.path / "runs" / f"{number:04d}"

    def serving(self) -> Serving:
        """Return how the server was last started.

        Raises:
            FederationError: it never was.
        """
        found = _read(self.path / _SERVER, Serving)
        if found is None:
            raise FederationError(
                f"{self.path} holds no federation server: start one with `moehub federate server --state {self.path}`, "
                "or name its folder with --state"
            )
        return found

    def serve(self, serving: Serving) -> None:
        """Write down how the server is started."""
        files.write_text(self.path / _SERVER, files.to_json(dataclasses.asdict(serving)))

    def job(self) -> Job | None:
        """Return the run that the server does, or did last."""
        return _read(self.path / _RUN, Job)

    def assign(self, job: Job) -> None:
        """Write down what the server does."""
        files.write_text(self.path / _RUN, files.to_json(dataclasses.asdict(job)))

    def close(self, job: Job, outcome: str) -> None:
        """Write down how a run ended, unless another has begun or it is known already."""
        with self.locked():
            current = self.job()
            if current is not None and current.number == job.number and not current.outcome:
                self.assign(dataclasses.replace(current, outcome=outcome))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands from changing anything in the folder."""
        self.path.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path / ".lock"):
            yield


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        return config.from_mapping(kind, values, source=str(path))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, ConfigError) as error:
        raise FederationError(f"{path} cannot be read ({error}): restore it from a backup, or remove it") from error
