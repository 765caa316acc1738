"""A hub on this machine's loopback: the real server, and what can go wrong between it and a client.

Faults are made by hand: `Hub.flip` damages a stored file, `Hub.lose_answers` makes the next commits without telling the
client, and `Hub.cut` breaks the next download off.
"""

import contextlib
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from moehub.hubserver.application import Application, application
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.repos import MAIN, Repo
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.store.trees import Entry
from moehub.hubserver.visitor import EVERYBODY

OWNER, NAMESPACES = "alice", ("acme", "other")


@dataclass(frozen=True)
class Cut:
    """A download that breaks off."""

    after: int
    """How many bytes reach the client."""
    then: Callable[[], object] = lambda: None
    """What happens before it asks again."""


@dataclass
class Hub:
    """The server, its store, and the knobs of the tests."""

    store: Store
    inner: Application
    token: str
    """Of alice, who may write to `acme` and `other`."""
    url: str = ""
    lose_answers: int = 0
    """How many of the next commits are made without an answer."""
    cut: Cut | None = None
    """What the next download meets."""
    asked: list[str] = field(default_factory=list)
    """Method and path of every request."""
    tokens_seen: set[str | None] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as the server does, or worse."""
        path = scope["raw_path"].decode()
        self.asked.append(f"{scope['method']} {path}")
        sent = [value.decode() for name, value in scope["headers"] if name == b"authorization"]
        self.tokens_seen.add(sent[0] if sent else None)
        if self.lose_answers and scope["method"] == "POST" and "/commit/" in path:
            self.lose_answers -= 1
            send = _half(send)
        elif self.cut and scope["method"] == "GET" and "/resolve/" in path:
            send = self._cutting(send)
        await self.inner(scope, receive, send)

    def _cutting(self, send: Send) -> Send:
        left = self.cut.after if self.cut else 0

        async def cut(message: Message) -> None:
            nonlocal left
            body = message.get("body", b"")
            if len(body) <= left:
                left -= len(body)
                await send(message)
                return
            await send({**message, "body": body[:left], "more_body": True})
            if self.cut:
                then, self.cut = self.cut.then, None
                then()
            raise ConnectionError("the connection breaks here")

        return cut

    def repo(self, name: str = "acme/law") -> Repo:
        """Return a repo, made where there is none."""
        try:
            return self.store.repos.get(name, EVERYBODY)
        except RefusedError:
            return self.store.repos.create(name, EVERYBODY)

    def head(self, name: str = "acme/law") -> str:
        """Return the newest commit of a repo."""
        return self.store.repos.resolve(self.repo(name), MAIN)

    def tree(self, name: str = "acme/law") -> dict[str, Entry]:
        """Return the files of the newest commit."""
        return self.store.history.tree(self.repo(name), self.head(name))

    def commits(self, name: str = "acme/law") -> int:
        """Return the number of commits after the one that made the repo."""
        return len(list(self.store.history.before(self.repo(name), self.head(name)))) - 1

    def add(self, files: Mapping[str, bytes], name: str = "acme/law") -> str:
        """Commit files behind the client's back: those that hold tensors as large ones."""
        repo, entries = self.repo(name), {}
        for path, content in files.items():
            blob = self.store.uploads.take_bytes(content, repo.number)
            large = path.endswith(".safetensors")
            entries[path] = trees.large(blob.sha256, blob.size) if large else trees.regular(content, blob.sha256)
        return self.store.history.commit(repo, MAIN, Change(entries), title="somebody else's", author="bob")

    def flip(self, path: str, name: str = "acme/law") -> None:
        """Damage the bytes of a file, while everything that is said about it stays."""
        blob = self.store.blobs.path(self.tree(name)[path].sha256)
        content = blob.read_bytes()
        blob.chmod(0o600)
        blob.write_bytes(bytes([content[0] ^ 1]) + content[1:])


def _half(send: Send) -> Send:
    """Return a `send` that breaks off in the middle of the answer."""

    async def half(message: Message) -> None:
        if message["type"] == "http.response.start":
            await send({**message, "headers": [(b"content-length", b"1000")]})
            await send({"type": "http.response.body", "body": b"{", "more_body": True})
            raise ConnectionError("the connection breaks here")

    return half


@contextlib.contextmanager
def running(root: Path, *, quota: int | None = None, port: int = 0) -> Iterator[Hub]:
    """Yield a hub over the folder `root` that listens on 127.0.0.1 until the block ends; no gate stands before it."""
    store = open_store(root, quota=quota, create=True)
    inner = application(store, ServerSettings(root), admit=lambda _repo, _tree: None)
    _, token = store.tokens.create(OWNER, NAMESPACES, writes=True, lifetime=dt.timedelta(hours=1))
    hub = Hub(store, inner, token)
    config = uvicorn.Config(hub, host="127.0.0.1", port=port, log_level="critical", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if time.monotonic() > deadline or not thread.is_alive():
            raise RuntimeError("the hub did not start")
        time.sleep(0.01)
    hub.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        yield hub
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        store.database.close()
