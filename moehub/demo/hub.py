"""The demo's own hub: the real server, on this machine's loopback, for as long as it is needed."""

import contextlib
import datetime as dt
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from moehub.hub import seen
from moehub.hub.remote import RemoteHub

ORGANISATION = "demo"
_LOOPBACK = "127.0.0.1"
_PROXY_EXCEPTIONS = ("NO_PROXY", "no_proxy")


@contextlib.contextmanager
def running_hub(root: Path) -> Iterator[RemoteHub]:
    """Yield a hub over the folder `root` that listens on a free port; it stops when the block ends, the folder stays.

    It is spoken to with a token of its own, which is worthless afterwards. Nobody else's hub is asked for anything.
    """
    from moehub.hubserver import serve
    from moehub.hubserver.settings import ServerSettings
    from moehub.hubserver.store.store import open_store

    store = open_store(root, create=True)
    token, secret = store.tokens.create(ORGANISATION, [ORGANISATION], writes=True, lifetime=dt.timedelta(days=1))
    try:
        with serve.running(ServerSettings(root, host=_LOOPBACK, port=0)) as url, _reachable(), _forgotten():
            yield RemoteHub(url, token=secret)
    finally:
        store.tokens.revoke(token.id)
        store.database.close()


@contextlib.contextmanager
def _reachable() -> Iterator[None]:
    """Let the client reach the loopback also where it is told to stay offline, or to go through a proxy."""
    import huggingface_hub.constants

    constants = huggingface_hub.constants
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = False
    exceptions = {name: ",".join(filter(None, [os.environ.get(name), _LOOPBACK])) for name in _PROXY_EXCEPTIONS}
    try:
        with _environment(exceptions):
            yield
    finally:
        constants.HF_HUB_OFFLINE = offline


@contextlib.contextmanager
def _forgotten() -> Iterator[None]:
    """Let nothing of this hub be remembered: its port is somebody else's tomorrow."""
    with tempfile.TemporaryDirectory(prefix="moehub-demo-") as folder, _environment({seen.VARIABLE: folder}):
        yield


@contextlib.contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Set variables for as long as the block runs."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
