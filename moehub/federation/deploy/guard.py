"""Doors in front of Flower's programs: nothing runs at either end but what is installed there.

Flower sends an app's Python to every node and runs it. A SuperLink, or whoever reaches its operator's port, could so
run anything on a contributor's machine. `doors` makes a folder of programs with the names by which Flower starts an
app's processes; first in PATH, they are found instead. A door looks at the app before anything of it is unpacked:
pyproject.toml, README.md and .info/CONTENT may be in it, and its components must be moehub's own. A task with any
other app is answered with an error. On nodes not even an admitted app is unpacked.

Each door also asks Linux to be killed with whoever started it, so that a killed SuperNode leaves no process behind.
"""

import importlib
import io
import os
import shlex
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from moehub import files
from moehub.errors import FederationError
from moehub.federation.deploy import endings, pids

SERVER, CLIENT = "moehub.federation.server_app:app", "moehub.federation.client_app:app"
"""What runs at either end: installed there, never sent."""
PYPROJECT, README = "pyproject.toml", "README.md"
PLACE = "MOEHUB_FEDERATION_PLACE"
"""Environment: the folder that holds the ServerApp's log and pid, as `processes.Processes` keeps them."""
SERVER_APP = "serverapp"
"""The ServerApp's name in that folder."""
_ALLOWED = {PYPROJECT, README, ".info/CONTENT"}
_LARGEST = 8 << 20
"""Bytes of an app and of each file in it, unpacked. Settings take kilobytes."""
_DOORS = "flower-superexec", "flwr-agentapp", "flwr-clientapp", "flwr-serverapp"
_SHUT = "flwr-connector", "flwr-model", "flwr-simulation"
_INSTALLING = "--allow-runtime-dependency-installation"


def doors(folder: Path) -> Path:
    """Write the programs into `folder`, which is to come first in PATH, and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*_DOORS, *_SHUT):
        command = shlex.join([sys.executable, "-P", "-m", "moehub.federation.deploy.guard", name])
        files.write_text(folder / name, f'#!/bin/sh\nexec {command} "$PPID" "$@"\n')
        (folder / name).chmod(0o755)
    return folder


def inspect(app: bytes) -> None:
    """Refuse an app that carries anything but settings for moehub's own components.

    Raises:
        FederationError: it does; the sentence says what.
    """
    try:
        if len(app) > _LARGEST:
            raise _refusal(f"it is {len(app):,} bytes large")
        with zipfile.ZipFile(io.BytesIO(app)) as archive:
            entries = archive.infolist()
            if strange := sorted({entry.filename for entry in entries} - _ALLOWED):
                raise _refusal(f"it carries {', '.join(map(repr, strange[:5]))}")
            if len(entries) != len({entry.filename for entry in entries}):
                raise _refusal("it carries a file twice")
            if any(entry.file_size > _LARGEST for entry in entries):
                raise _refusal("it carries a file that is too large")
            project = tomllib.loads(archive.read(PYPROJECT).decode())
        components = project["tool"]["flwr"]["app"]["components"]
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, NotImplementedError, RuntimeError, EOFError) as error:
        raise _refusal(f"it cannot be read ({error})") from error
    if components != {"serverapp": SERVER, "clientapp": CLIENT}:
        raise _refusal(f"its components are {components!r:.200}")


def _refusal(reason: str) -> FederationError:
    return FederationError(
        f"this app is not run here: {reason}, expected only the settings of a moehub federation; "
        "make the app with `moehub federate bundle`"
    )


def client_app(arguments: list[str]) -> NoReturn:
    """Run Flower's ClientApp process, in which the only ClientApp is moehub's."""
    flower = importlib.import_module("flwr.supernode.runtime.run_clientapp")
    _replace(flower, "install_from_fab", lambda app, **_: inspect(app))
    _replace(flower, "get_load_client_app_fn", lambda **_: _own_client_app)
    _run("flwr.supernode.cli.flwr_clientapp", "flwr_clientapp", arguments)


def _own_client_app(*_: str) -> Any:
    return importlib.import_module(CLIENT.partition(":")[0]).app


def server_app(arguments: list[str]) -> NoReturn:
    """Run Flower's ServerApp process, in which only moehub's ServerApp is run; it writes a log."""
    place = os.environ.get(PLACE)
    if place:
        _write_to(Path(place) / "logs" / f"{SERVER_APP}.log")
        pids.record(Path(place), SERVER_APP, os.getpid())
    flower = importlib.import_module("flwr.superlink.runtime.run_serverapp")
    install = flower.install_from_fab

    def checked(app: bytes, **options: Any) -> Any:
        inspect(app)
        return install(app, **options)

    _replace(flower, "install_from_fab", checked)
    _run("flwr.superlink.cli.flwr_serverapp", "flwr_serverapp", arguments)


def superexec(arguments: list[str]) -> NoReturn:
    """Run Flower's SuperExec."""
    _run("flwr.supercore.cli.flower_superexec", "flower_superexec", arguments)


def _replace(module: ModuleType, name: str, value: Callable[..., Any]) -> None:
    """Put a function of ours in the place of Flower's; where Flower no longer has it, nothing may run."""
    if not callable(getattr(module, name, None)):
        raise SystemExit(f"{module.__name__} has no {name}: this Flower is not one that moehub can guard")
    setattr(module, name, value)


def _run(module: str, function: str, arguments: list[str]) -> NoReturn:
    sys.argv[1:] = [each for each in arguments if each != _INSTALLING]
    getattr(importlib.import_module(module), function)()
    raise SystemExit(0)


def _write_to(log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())


def main() -> NoReturn:
    """Go through the door that the first argument names; the second is the pid of whoever started it."""
    name, parent, *arguments = sys.argv[1:]
    endings.die_with(int(parent))
    sys.argv[0] = name
    if name in _SHUT:
        raise SystemExit(f"{name} is not run here: a moehub federation needs none")
    # An AgentApp is answered for by the ClientApp's door, which refuses it.
    ways = {"flower-superexec": superexec, "flwr-serverapp": server_app}
    ways.get(name, client_app)(arguments)


if __name__ == "__main__":
    main()
