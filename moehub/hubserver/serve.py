"""A hub that listens: in the foreground until it is told to stop, or in a thread beside something else."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from filelock import FileLock, Timeout

from moehub import console
from moehub.errors import HubError
from moehub.hubserver import access_log
from moehub.hubserver.application import TOGETHER, application
from moehub.hubserver.checking import checker
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.history import Admit
from moehub.hubserver.store.store import Store, open_store

LOCK = "serving.lock"
_GRACE = 10
"""Seconds that requests get to end when the hub is told to stop."""
_ABANDONED = 24 * 3600.0
"""Seconds after which what is left of an upload has lost its sender."""
_IDLE = 30
"""Seconds that a connection may stay without a request."""
_LARGEST_HEADERS = 64 << 10
_CONNECTIONS = 4 * TOGETHER
_PATIENCE = 20.0


def serve(settings: ServerSettings) -> None:
    """Serve a hub until SIGTERM or SIGINT; requests that are being answered get some seconds.

    Raises:
        HubError: the root is no hub's or another one serves it, or the address is taken.
        OSError: the root cannot be written to.
    """
    access_log.to_standard_error()
    with _server(settings) as (server, listening), _quiet_signals():
        _introduce(settings, _address(listening))
        server.run([listening])
    console.console.print("stopped", markup=False)


@contextlib.contextmanager
def running(settings: ServerSettings) -> Iterator[str]:
    """Serve a hub in a thread until the block ends, and yield its address.

    Raises:
        HubError: the root is no hub's or another one serves it, or the address is taken.
        OSError: the root cannot be written to.
    """
    with _server(settings) as (server, listening):
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        try:
            deadline = time.monotonic() + _PATIENCE
            while not server.started:
                if time.monotonic() > deadline or not thread.is_alive():
                    raise HubError(
                        f"the hub in {settings.root} did not start within {_PATIENCE:.0f} seconds: try again"
                    )
                time.sleep(0.01)
            yield _address(listening)
        finally:
            server.should_exit = True
            thread.join(_GRACE + _PATIENCE)


@contextlib.contextmanager
def _server(settings: ServerSettings) -> Iterator[tuple[uvicorn.Server, socket.socket]]:
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listening(settings))
        store = open_store(settings.root, quota=settings.quota, pickles=settings.pickles, create=True)
        stack.enter_context(contextlib.closing(store.database))
        stack.enter_context(_alone(settings.root))
        for path in store.blobs.abandoned(_ABANDONED):
            path.unlink(missing_ok=True)
        admit = stack.enter_context(_admitting(store, settings))
        app = application(store, settings, admit=admit)
        config = uvicorn.Config(
            app,
            http="h11",  # the strictest parser there is, and the only one here that limits headers
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_level="critical",
            log_config=None,
            limit_concurrency=_CONNECTIONS,
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=_GRACE,
            h11_max_incomplete_event_size=_LARGEST_HEADERS,
        )
        yield uvicorn.Server(config), listening


@contextlib.contextmanager
def _admitting(store: Store, settings: ServerSettings) -> Iterator[Admit]:
    """Yield what every commit has to pass; the gate's process ends with the block."""
    if not settings.gate:
        yield lambda _repo, _tree: None
        return
    with checker(store, settings) as admit:
        yield admit


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep a second server away: two would count quotas, uploads and gates each for itself, and gain nothing.

    Raises:
        HubError: one is there.
    """
    lock = FileLock(root / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise HubError(f"a hub is serving {root} already: stop it, or choose another folder with --root") from error
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def _listening(settings: ServerSettings) -> Iterator[socket.socket]:
    """Yield a socket at the address of the settings.

    Raises:
        HubError: there is no such address here, or it is taken.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listening = socket.create_server((settings.host, settings.port), family=family, backlog=1024)
    except OSError as error:
        raise HubError(
            f"the hub cannot listen at {settings.host} port {settings.port} ({_reason(error)}): "
            "stop what is there, or choose another with --host and --port"
        ) from error
    with listening:
        yield listening


def _reason(error: OSError) -> str:
    return str(error) if isinstance(error, socket.gaierror) or not error.errno else os.strerror(error.errno)


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _introduce(settings: ServerSettings, address: str) -> None:
    url = settings.url or address
    lines = [f"the hub in {settings.root} answers at {url}"]
    if settings.open:
        lines.append("everybody on this machine may read and write, without a token")
    else:
        lines.append(f"a token for whoever writes: moehub hub token create NAME --write --root {settings.root}")
    lines += [f"for hf, transformers and PEFT: export HF_ENDPOINT={url}", f"for moehub: --hub {url}", "Ctrl-C stops it"]
    console.console.print("\n".join(lines), markup=False, soft_wrap=True)


@contextlib.contextmanager
def _quiet_signals() -> Iterator[None]:
    """End without a traceback or a signal's status: uvicorn raises the signal again when it has stopped."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
