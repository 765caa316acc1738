"""What comes over the wire and makes no sense, never ends, or is too much."""

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from moehub.hubserver.api import commit as commits
from moehub.hubserver.api import receiving
from moehub.hubserver.application import Application
from moehub.hubserver.settings import ServerSettings
from tests.hubserver import wire
from tests.hubserver.conftest import Served, served
from tests.hubserver.wire import REPO, commit, create, file, raw, refused


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub with a repo that no test here changes."""
    with served(tmp_path_factory.mktemp("kept") / "hub") as hub:
        create(hub)
        yield hub


BODIES = [
    b"",
    b"x",
    b"[]",
    b"null",
    b'"text"',
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"name": 5, "organization": []}',
    b'{"name": "\\ud800", "organization": "acme"}',
    b'{"files": 5, "objects": 5, "content": 5, "operation": 5, "tag": 5, "gated": {}, "visibility": []}',
    b'{"files": [{"path": "a", "size": 1e400}], "operation": "upload", "objects": [{"oid": "a", "size": 1e400}]}',
    b'{"files": [{"path": "\\ud800", "size": 1}], "tag": "\\ud800", "content": "\\ud800", "gated": "\\ud800"}',
    b'{"startingPoint": 5, "tag": null, "files": [[]], "operation": "download", "visibility": "x"}',
    b'{"size": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("content", BODIES)
def test_a_body_that_makes_no_sense_is_refused_with_a_sentence(kept: Served, content: bytes) -> None:
    """Wherever it is sent, and never as a mistake of the kept."""
    api = f"/api/models/{REPO}"
    for method, path in (
        ("POST", "/api/repos/create"),
        ("DELETE", "/api/repos/delete"),
        ("POST", "/api/validate-yaml"),
        ("POST", f"{api}/preupload/main"),
        ("POST", f"{api}/commit/main"),
        ("POST", f"{api}/tag/main"),
        ("PUT", f"{api}/settings"),
        ("POST", f"/{REPO}.git/info/lfs/objects/batch"),
    ):
        answer = kept.ask(method, path, token=kept.ada, content=content)
        if method == "PUT" and answer.status_code == 200:
            continue  # settings that are not named stay as they are
        assert 400 <= answer.status_code < 500, (path, answer.text)
        assert len(answer.json().get("error", "")) > 20


@pytest.mark.parametrize(
    "lines",
    [
        [{"key": "file", "value": {"path": "a", "content": "?"}}],
        [{"key": "file", "value": {"path": "a", "content": "YQ"}}],
        [{"key": "file", "value": {"content": "YQ=="}}],
        [{"key": "file"}],
        [{"value": {}}],
        [{"key": "rename", "value": {}}],
        [{"key": "lfsFile", "value": {"path": "a", "oid": "../../x"}}],
        [{"key": "lfsFile", "value": {"path": "a", "oid": "a" * 64, "size": "1"}}],
        [{"key": "deletedFile", "value": {"path": 5}}],
        [{"key": "header", "value": {"summary": ""}}],
        [{"key": "header", "value": {"summary": "x" * 100_000}}],
        [{"key": "header", "value": {"summary": "x", "parentCommit": 5}}],
        ["x"],
    ],
)
def test_a_commit_that_makes_no_sense_is_refused(kept: Served, lines: list[Any]) -> None:
    """And nothing of it is made."""
    before = kept.ask("GET", f"/api/models/{REPO}").json()["sha"]
    content = wire.body([file("good"), *lines])
    answer = kept.ask("POST", f"/api/models/{REPO}/commit/main", token=kept.ada, content=content)
    assert answer.status_code in (400, 422), answer.text
    assert kept.ask("GET", f"/api/models/{REPO}").json()["sha"] == before


def test_a_query_that_makes_no_sense_is_refused(kept: Served) -> None:
    """With a sentence."""
    words = "+".join(["a"] * 60)
    for query in (
        "limit=x",
        "limit=-1",
        "cursor=x",
        "cursor=~" + "9" * 40,
        f"search={words}",
        "filter=a&" * 60,
        "a=%ff",
    ):
        answer = kept.ask("GET", f"/api/models?{query}")
        assert answer.status_code == 400, query
    assert kept.ask("GET", "/api/models/%ff/x").status_code == 400


def test_a_body_has_an_end(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON, lines, single small files and commits are capped while they come."""
    create(hub)
    assert hub.ask("POST", "/api/validate-yaml", content=b" " * (5 << 20)).status_code == 413
    path = f"/api/models/{REPO}/commit/main"
    answer = hub.ask("POST", path, token=hub.ada, content=iter([b"x" * (1 << 20)] * 4))
    assert (answer.status_code, "a line" in answer.json()["error"]) == (413, True)
    assert commit(hub, file("a", b"x" * ((1 << 20) + 1))).status_code == 413
    monkeypatch.setattr(commits, "_LARGEST", 1000)
    assert commit(hub, *(file(f"{number}", b"x" * 100) for number in range(10))).status_code == 413
    monkeypatch.setattr(commits, "_MOST_OPERATIONS", 5)
    monkeypatch.setattr(commits, "_LARGEST", 1 << 20)
    assert commit(hub, *(wire.gone(f"{number}") for number in range(5))).status_code == 413


def test_who_sends_nothing_more_is_given_up(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that never ends would hold its request for ever."""
    monkeypatch.setattr(receiving, "_SILENCE", 0.2)
    head = b"POST /api/repos/create HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
    assert raw(hub, head).startswith(b"HTTP/1.1 408")


def test_headers_have_an_end(hub: Served) -> None:
    """Nobody needs more than some KiB of them."""
    head = b"GET /api/models HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: y\r\n" * 50_000 + b"\r\n"
    assert raw(hub, head).startswith(b"HTTP/1.1 400")


def test_another_method_is_not_allowed(hub: Served) -> None:
    """And it is said which one is."""
    for method, path in (("PATCH", "/api/models"), ("DELETE", f"/api/models/{REPO}"), ("POST", "/api/whoami-v2")):
        status, said = refused(hub.ask(method, path))
        assert (status, "expected GET" in said) == (405, True)
    assert hub.ask("POST", "/").status_code == 405


def test_a_busy_hub_says_so(hub: Served) -> None:
    """At once, so that the client tries again later."""
    busy = Application(hub.store, ServerSettings(hub.store.root), lambda _repo, _tree: None, together=0)

    async def asked() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(busy), base_url="http://localhost") as client:
            return await client.get("/api/models")

    answer = asyncio.run(asked())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
