"""The protocol by hand: what the client would send, and what it never would."""

import base64
import hashlib
import json
import socket
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.hubserver.conftest import Served

REPO = "acme/law"


def create(hub: Served, repo: str = REPO, *, token: str | None = None, **values: Any) -> httpx2.Response:
    """Make a repo; as ada where no token is given."""
    namespace, name = repo.split("/")
    body = {"organization": namespace, "name": name, **values}
    return hub.ask("POST", "/api/repos/create", token=token or hub.ada, json=body)


def file(path: str, content: bytes = b"x") -> dict[str, Any]:
    """A small file of a commit."""
    return {"key": "file", "value": {"path": path, "encoding": "base64", "content": base64.b64encode(content).decode()}}


def large(path: str, content: bytes) -> dict[str, Any]:
    """A large file of a commit."""
    return {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": sha256(content), "size": len(content)}}


def gone(path: str) -> dict[str, Any]:
    """A file that a commit deletes."""
    return {"key": "deletedFile", "value": {"path": path}}


def body(operations: Iterable[Mapping[str, Any]], parent: str | None = None, title: str = "Change it") -> bytes:
    """A commit as the client sends it."""
    header = {"summary": title, "description": "", **({"parentCommit": parent} if parent else {})}
    return b"".join(json.dumps(line).encode() + b"\n" for line in [{"key": "header", "value": header}, *operations])


def commit(
    hub: Served,
    *operations: Mapping[str, Any],
    repo: str = REPO,
    branch: str = "main",
    token: str | None = None,
    parent: str | None = None,
) -> httpx2.Response:
    """Make a commit; as ada where no token is given."""
    path = f"/api/models/{repo}/commit/{branch}"
    return hub.ask("POST", path, token=token or hub.ada, content=body(operations, parent))


def committed(hub: Served, *operations: Mapping[str, Any], **more: Any) -> str:
    """Make a commit that is good, and return its name."""
    return str(good(commit(hub, *operations, **more))["commitOid"])


def batch(hub: Served, *contents: bytes, repo: str = REPO, token: str | None = None) -> list[dict[str, Any]]:
    """Ask where large files go, and return what is said about each."""
    objects = [{"oid": sha256(content), "size": len(content)} for content in contents]
    return batch_of(hub, *objects, repo=repo, token=token)


def batch_of(
    hub: Served, *objects: Mapping[str, Any], repo: str = REPO, token: str | None = None
) -> list[dict[str, Any]]:
    """Ask where large files go that only have a sha256 and a size."""
    asked = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256"}
    answer = hub.ask("POST", f"/{repo}.git/info/lfs/objects/batch", token=token or hub.ada, json=asked)
    return list(good(answer)["objects"])


def address(hub: Served, content: bytes, repo: str = REPO) -> str:
    """Return the path of the signed address for a large file, beginning with a slash."""
    href = batch(hub, content, repo=repo)[0]["actions"]["upload"]["href"]
    return str(href).removeprefix(hub.url)


def upload(hub: Served, content: bytes, repo: str = REPO) -> None:
    """Send a large file."""
    assert hub.ask("PUT", address(hub, content, repo), content=content).status_code == 200


def good(answer: httpx2.Response) -> Any:
    """Return what a good answer holds."""
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and sentence of a refusal."""
    return answer.status_code, answer.json()["error"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def raw(hub: Served, request: bytes, *, timeout: float = 10) -> bytes:
    """Send bytes as they are, and return what comes back until the hub closes or the answer's beginning is whole."""
    with socket.create_connection(("127.0.0.1", urlsplit(hub.url).port or 0), timeout=timeout) as connection:
        connection.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer and (piece := connection.recv(1 << 16)):
            answer += piece
    return answer
