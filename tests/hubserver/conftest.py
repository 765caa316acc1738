"""A hub that listens on loopback, and those who use it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from moehub.hubserver import serve
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.store import Store, open_store


@dataclass(frozen=True)
class Served:
    """A running hub."""

    url: str
    store: Store
    """The same store that the server uses, for looking behind it."""
    ada: str
    """A token that writes to `acme`, and to `ada`."""
    reader: str
    """A token that reads `acme`."""
    eve: str
    """A token that writes to `eve` alone."""

    def ask(self, method: str, path: str, *, token: str | None = None, **more: Any) -> httpx2.Response:
        """Send one request, with the path as it stands; redirects are not followed."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        with httpx2.Client(trust_env=False, timeout=30) as client:
            return client.request(method, self.url + path, headers=headers, **more)


@contextlib.contextmanager
def served(root: Path, **settings: Any) -> Iterator[Served]:
    """Serve a hub without a gate on a free port until the block ends."""
    settings = {"port": 0, "gate": False, **settings}
    store = open_store(root, create=True, quota=settings.get("quota"))
    tokens = {
        "ada": store.tokens.create("ada", ["acme", "ada"], writes=True)[1],
        "reader": store.tokens.create("reader", ["acme"])[1],
        "eve": store.tokens.create("eve", ["eve"], writes=True)[1],
    }
    try:
        with serve.running(ServerSettings(root, **settings)) as url:
            yield Served(url, store, **tokens)
    finally:
        store.database.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Served]:
    """A hub of ada's that asks for tokens."""
    with served(tmp_path / "hub") as found:
        yield found


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store that nobody serves."""
    made = open_store(tmp_path / "store", create=True)
    yield made
    made.database.close()
