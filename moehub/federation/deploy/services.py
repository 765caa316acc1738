"""Flower's programs as services: their command lines, their environment, and when they are ready."""

import contextlib
import http.client
import os
import secrets
import site
import socket
import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

import tomli_w

import moehub
from moehub import files
from moehub.errors import FederationError
from moehub.federation.deploy.processes import Service

LOOPBACK = "127.0.0.1"
_LOWEST, _HIGHEST = 20_000, 32_000
"""Ports to choose from: below those that systems give to outgoing connections, so that ours stay free for a restart."""


def environment(home: Path, *, first: Path | None = None, **more: str) -> dict[str, str]:
    """Return the environment of Flower's programs.

    `home` is their FLWR_HOME; programs in the folder `first` come before all others of the same name (`guard.doors`
    makes one). They send no telemetry, ask for no update, and install nothing.
    """
    programs = [str(first)] if first is not None else []
    direct = ",".join(filter(None, [LOOPBACK, "localhost", os.environ.get("no_proxy") or os.environ.get("NO_PROXY")]))
    return {
        **os.environ,
        "PATH": os.pathsep.join([*programs, str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        **_importable(),
        "NO_PROXY": direct,
        "no_proxy": direct,
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "PYTHONUNBUFFERED": "1",
        **more,
    }


def superlink(
    environment: Mapping[str, str],
    *,
    host: str,
    port: int,
    database: Path,
    tls: tuple[Path, Path, Path] | None = None,
    authenticated: bool = False,
) -> Service:
    """Return the SuperLink: its ServerApps run outside of it, and its state outlives it in `database`.

    `tls` is the certificate authority's certificate, the server's, and the server's key.
    """
    options = _server_tls(tls) + (["--enable-supernode-auth"] if authenticated else [])
    return Service(
        "superlink",
        (
            *(executable("flower-superlink"), "--isolation", "process", "--disable-runtime-dependency-installation"),
            *("--host", host, "--port", str(port), "--database", str(database)),
            *options,
        ),
        environment,
    )


def superexec(environment: Mapping[str, str], *, superlink: str, authority: Path | None = None) -> Service:
    """Return the process that starts ServerApps for the SuperLink at `superlink`, which it may outlive."""
    return Service(
        "superexec",
        (executable("flower-superexec"), *_client_tls(authority), "--runtime-api-address", superlink),
        environment,
    )


def supernode(
    environment: Mapping[str, str],
    *,
    name: str,
    superlink: str,
    port: int,
    configuration: Path,
    authority: Path | None = None,
    system: bool = False,
    key: Path | None = None,
    restarts: int = 5,
    essential: bool = True,
) -> Service:
    """Return a SuperNode; `configuration` is what `node_configuration` wrote, `key` its private key.

    With `system`, the SuperLink's certificate is one that this machine trusts without an `authority`.
    """
    options = ["--auth-supernode-private-key", str(key)] if key is not None else []
    return Service(
        name,
        (
            *(executable("flower-supernode"), *([] if system else _client_tls(authority)), "--superlink", superlink),
            *("--host", LOOPBACK, "--port", str(port), "--node-config", str(configuration), *options),
        ),
        environment,
        restarts,
        essential,
    )


def worker(environment: Mapping[str, str], *, desk: Path, name: str = "worker", device: str | None = None) -> Service:
    """Return the resident worker of a desk; `device` is the one accelerator that it sees."""
    seen = {} if device is None else {"CUDA_VISIBLE_DEVICES": device}
    return Service(
        name, (sys.executable, "-P", "-m", "moehub.federation.node.worker", str(desk)), {**environment, **seen}
    )


def node_configuration(path: Path, values: Mapping[str, str | int | float | bool]) -> Path:
    """Write what a SuperNode tells its ClientApps, and return the path.

    Raises:
        ValueError: the file's name does not end in .toml, by which Flower knows a file.
    """
    if path.suffix != ".toml":
        raise ValueError(f"{path} does not end in .toml")
    files.write_text(path, tomli_w.dumps(values))
    return path


def connection(home: Path, name: str, *, address: str, authority: Path | None = None) -> None:
    """Name a SuperLink for the `flwr` commands of this home."""
    secure = {"root-certificates": str(authority)} if authority is not None else {"insecure": True}
    written = {"superlink": {"default": name, name: {"address": address, **secure}}}
    files.write_text(home / "config.toml", tomli_w.dumps(written))


def healthy(host: str, port: int, authority: Path | None = None) -> bool:
    """Say whether the SuperLink or SuperNode at this port answers."""
    wire = (
        http.client.HTTPConnection(host, port, timeout=2)
        if authority is None
        else http.client.HTTPSConnection(
            host, port, timeout=2, context=ssl.create_default_context(cafile=str(authority))
        )
    )
    try:
        wire.request("GET", "/health")
        return wire.getresponse().status < 300
    except (OSError, http.client.HTTPException):
        return False
    finally:
        wire.close()


def free_ports(count: int) -> list[int]:
    """Return so many ports on loopback, all different, that nobody listens on.

    Raises:
        FederationError: there are not enough.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for _ in range(200 + 2 * count):
            if len(found) == count:
                return found
            probe = held.enter_context(socket.socket())
            port = _LOWEST + secrets.randbelow(_HIGHEST - _LOWEST)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                found.append(port)
    raise FederationError(
        f"{count} ports between {_LOWEST} and {_HIGHEST} are not free on {LOOPBACK}: end what holds them"
    )


def free_port() -> int:
    """Return a port on loopback that nobody listens on.

    Raises:
        FederationError: none was found.
    """
    return free_ports(1)[0]


def executable(name: str) -> str:
    """Return the path of a program that was installed with Flower, beside this Python.

    Raises:
        FederationError: it is not there.
    """
    path = Path(sys.executable).parent / name
    if not path.is_file():
        raise FederationError(f"{path} is missing, expected with flwr: install moehub again with pip install moehub")
    return str(path)


def _importable() -> dict[str, str]:
    """Let Flower's programs import this moehub where it is not installed but a checkout."""
    home = str(Path(moehub.__file__).parents[1])
    if home in {*site.getsitepackages(), site.getusersitepackages()}:
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [home, os.environ.get("PYTHONPATH")]))}


def _server_tls(files: tuple[Path, Path, Path] | None) -> list[str]:
    if files is None:
        return ["--insecure"]
    names = ("--ssl-ca-certfile", "--ssl-certfile", "--ssl-keyfile")
    return [word for name, path in zip(names, files, strict=True) for word in (name, str(path))]


def _client_tls(authority: Path | None) -> list[str]:
    return ["--insecure"] if authority is None else ["--root-certificates", str(authority)]
