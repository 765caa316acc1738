"""What a stranger may not do: every line of the list of what a hub has to refuse."""

import asyncio
import datetime as dt
import errno
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from moehub.errors import ConfigError
from moehub.hubserver import access_log
from moehub.hubserver.api import commit as commits
from moehub.hubserver.api import receiving
from moehub.hubserver.application import Application
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.database import written
from moehub.hubserver.store.history import History
from moehub.hubserver.store.repos import Repos
from moehub.hubserver.store.uploads import Uploads
from tests.hubserver import wire
from tests.hubserver.conftest import Served, served
from tests.hubserver.wire import REPO, address, commit, committed, create, file, large, raw, refused, upload

CONTENT = b"\0tensors"


@pytest.fixture
def secret(hub: Served) -> Served:
    """The hub, with a private repo of acme's."""
    create(hub, "acme/secret", visibility="private")
    committed(hub, file("README.md", b"hidden"), repo="acme/secret")
    return hub


@pytest.fixture
def open_hub(tmp_path: Path) -> Iterator[Served]:
    """A hub that asks for no tokens."""
    with served(tmp_path / "open", open=True) as found:
        yield found


# Paths.


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//b",
        "./x",
        "a/.",
        ".git/config",
        "a/.GIT/hooks",
        "",
        "a\\b",
        "a\0b",
        "a\nb",
        "x" * 1025,
        "a:b",
        "a ",
    ],
)
def test_a_commit_cannot_leave_its_repo(hub: Served, path: str) -> None:
    """Neither by small files nor by large ones, and the client learns it before it uploads."""
    create(hub)
    upload(hub, CONTENT)
    assert commit(hub, file(path)).status_code == 400
    assert commit(hub, large(path, CONTENT)).status_code == 400
    files = {"files": [{"path": path, "size": 1, "sample": ""}]}
    assert hub.ask("POST", f"/api/models/{REPO}/preupload/main", token=hub.ada, json=files).status_code == 400


@pytest.mark.parametrize(
    "path",
    [
        "/acme/law/resolve/main/../../../../etc/passwd",
        "/acme/law/resolve/main/..%2F..%2F..%2Fsecret",
        "/acme/law/resolve/main/%2e%2e/%2e%2e/secret",
        "/acme/law/resolve/main//etc/passwd",
        "/acme/law/resolve/..%2F..%2Fsecret/README.md",
        "/../secret",
        "/..%2Fhub.sqlite3",
        "/acme/law/resolve/main/README.md%00.txt",
    ],
)
def test_nothing_but_a_repos_files_can_be_read(hub: Served, path: str) -> None:
    """Whatever a path is made of, it is looked up and never opened."""
    create(hub)
    answer = raw(hub, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"404", b"400")
    assert b"root:" not in answer
    assert hub.store.secret not in answer


@pytest.mark.parametrize(
    "name", ["../x", "a..b", "/a", "a/", "a//b", "-a", ".a", "a b", "a" * 201, "0" * 40, "a\nb", ""]
)
def test_a_branch_or_tag_is_named_plainly(hub: Served, name: str) -> None:
    """Not like a path that leads elsewhere, nor like a commit."""
    create(hub)
    assert hub.ask("POST", f"/api/models/{REPO}/tag/main", token=hub.ada, json={"tag": name}).status_code == 400


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("a", "a/b"),
        ("a/b", "a"),
        ("README.md", "readme.md"),
        ("a/x", "A/y"),
        ("stra\u00dfe", "STRASSE"),
        ("\u00e9", "e\u0301"),
    ],
)
def test_files_that_cannot_stand_together_are_refused(hub: Served, first: str, second: str) -> None:
    """A file that is also a folder, and names that some system takes for one."""
    create(hub)
    committed(hub, file(first))
    assert commit(hub, file(second)).status_code == 400
    assert commit(hub, file(first), file(second)).status_code == 400


@pytest.mark.parametrize("name", ["pytorch_model.bin", "a.pt", "training_args.PKL", "x/model.ckpt"])
def test_pickles_are_refused(hub: Served, tmp_path: Path, name: str) -> None:
    """They run code when they are loaded; whoever runs the hub may take them."""
    create(hub)
    status, said = refused(commit(hub, file(name)))
    assert (status, "pickle" in said) == (400, True)
    with served(tmp_path / "lax", pickles=True) as lax:
        create(lax)
        assert commit(lax, file(name)).status_code == 200


# Who may do what.


PRIVATE = [
    ("GET", "/api/models/acme/secret", {}),
    ("GET", "/api/models/acme/secret/revision/main", {}),
    ("GET", "/api/models/acme/secret/tree/main", {}),
    ("GET", "/api/models/acme/secret/refs", {}),
    ("GET", "/api/models/acme/secret/commits/main", {}),
    ("GET", "/api/models/acme/secret/auth-check", {}),
    ("POST", "/api/models/acme/secret/paths-info/main", {"data": {"paths": "README.md"}}),
    ("GET", "/acme/secret/resolve/main/README.md", {}),
    ("POST", "/api/models/acme/secret/preupload/main", {"json": {"files": []}}),
    ("POST", "/api/models/acme/secret/commit/main", {"content": wire.body([file("a")])}),
    ("POST", "/acme/secret.git/info/lfs/objects/batch", {"json": {"operation": "upload", "objects": []}}),
    ("POST", "/api/models/acme/secret/tag/main", {"json": {"tag": "v1"}}),
    ("POST", "/api/models/acme/secret/branch/b", {"json": {}}),
    ("DELETE", "/api/models/acme/secret/tag/v1", {}),
    ("DELETE", "/api/models/acme/secret/branch/b", {}),
    ("PUT", "/api/models/acme/secret/settings", {"json": {"visibility": "public"}}),
    ("DELETE", "/api/repos/delete", {"json": {"organization": "acme", "name": "secret"}}),
    ("GET", "/api/models/acme/secret/xet-write-token/main", {}),
]


@pytest.mark.parametrize(("method", "path", "more"), PRIVATE)
def test_a_private_repo_is_not_there_for_others(secret: Served, method: str, path: str, more: dict[str, Any]) -> None:
    """Strangers and those of another namespace hear the same as about a repo that does not exist."""
    for token in (None, secret.eve):
        answer = secret.ask(method, path, token=token, **more)
        other = secret.ask(method, path.replace("acme/secret", "acme/none"), token=token, **_renamed(more))
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")
        assert answer.json()["error"] == other.json()["error"].replace("acme/none", "acme/secret")


def _renamed(more: dict[str, Any]) -> dict[str, Any]:
    return {**more, "json": {**more["json"], "name": "none"}} if "name" in more.get("json", {}) else more


@pytest.mark.parametrize(("method", "path", "more"), PRIVATE)
def test_who_may_read_may_not_write(secret: Served, method: str, path: str, more: dict[str, Any]) -> None:
    """A read-only token of the namespace sees its private repos, and changes nothing."""
    reads = (method == "GET" and "xet" not in path) or "paths-info" in path
    answer = secret.ask(method, path, token=secret.reader, **more)
    assert answer.status_code in ((200, 307) if reads else (403,))


def test_a_private_repo_is_not_listed_for_others(secret: Served) -> None:
    """Nor found by what is in it."""

    def names(token: str | None, query: str = "") -> list[str]:
        return [each["id"] for each in secret.ask("GET", f"/api/models{query}", token=token).json()]

    assert names(None) == names(secret.eve) == names(secret.eve, "?search=secret") == names(None, "?author=acme") == []
    assert names(secret.reader) == ["acme/secret"]


def test_nobody_makes_a_repo_in_a_namespace_of_others(hub: Served) -> None:
    """Strangers are asked for a token, others are told that theirs is not good for it."""
    assert create(hub, "acme/law", token=hub.eve).status_code == 403
    assert create(hub, "acme/law", token=hub.reader).status_code == 403
    assert hub.ask("POST", "/api/repos/create", json={"organization": "acme", "name": "law"}).status_code == 401


def test_a_gated_repo_is_read_by_those_who_were_admitted(hub: Served) -> None:
    """Others see that it is there, and not what is in it."""
    create(hub)
    committed(hub, file("README.md", b"gated"))
    hub.ask("PUT", f"/api/models/{REPO}/settings", token=hub.ada, json={"gated": "manual"})
    guest = hub.store.tokens.create("guest", ["guest"], grants=[REPO])[1]
    for path in (
        f"/{REPO}/resolve/main/README.md",
        f"/api/models/{REPO}/tree/main",
        f"/api/models/{REPO}/commits/main",
    ):
        answer = hub.ask("GET", path, token=hub.eve)
        assert (answer.status_code, answer.headers["x-error-code"]) == (403, "GatedRepo")
        assert hub.ask("GET", path, token=guest).status_code in (200, 307)
    assert hub.ask("GET", f"/api/models/{REPO}", token=hub.eve).status_code == 200


def test_a_token_that_ended_is_worth_nothing(hub: Served) -> None:
    """Nor one that was revoked, nor one that never was; the client hears that it is about the token."""
    token, ended = hub.store.tokens.create("ada", ["acme"], writes=True, lifetime=dt.timedelta(seconds=30))
    assert hub.ask("GET", "/api/whoami-v2", token=ended).status_code == 200
    with hub.store.database.writing() as connection:
        past = written(dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1))
        connection.execute("update token set expires = ? where id = ?", (past, token.id))
    hub.store.tokens.revoke(next(each.id for each in hub.store.tokens.list() if each.name == "eve"))
    create(hub)
    for worthless in (ended, hub.eve, "hf_none", "x" * 9000):
        answer = hub.ask("GET", f"/api/models/{REPO}", headers={"Authorization": f"Bearer {worthless}"})
        assert answer.status_code == 401
        assert answer.headers["x-error-message"] == "Invalid credentials in Authorization header"
    assert hub.ask("GET", f"/api/models/{REPO}", headers={"Authorization": "Basic YTpi"}).status_code == 401


def test_what_lies_on_disk_lets_nobody_in(hub: Served) -> None:
    """Tokens are kept as digests, and only the owner may look into the folder."""
    create(hub)
    hub.store.database.reading().execute("pragma wal_checkpoint(truncate)")
    for path in hub.store.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not any(token.encode() in content for token in (hub.ada, hub.reader, hub.eve)), path
    assert hub.store.root.stat().st_mode & 0o077 == 0


def test_the_log_holds_no_secret(hub: Served, caplog: pytest.LogCaptureFixture) -> None:
    """Neither tokens nor signatures, whatever was asked; and nothing that a terminal would obey."""
    caplog.set_level(logging.DEBUG, "")
    create(hub)
    hub.ask("PUT", address(hub, CONTENT), content=CONTENT)
    hub.ask("GET", f"/api/models?token={hub.ada}", token="hf_wrong")
    raw(hub, b"GET /\x1b[2J HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    ours = (access_log.log.name, "uvicorn")
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith(ours))
    assert f"ada PUT /api/uploads/{REPO}/{wire.sha256(CONTENT)} 200" in text.replace("anonymous", "ada")
    assert not any(word in text for word in (hub.ada, "hf_wrong", "\x1b", "earer", "signature"))


# The network.


def test_an_open_hub_is_for_this_machine_alone() -> None:
    """The whole network could write to it otherwise."""
    for host in ("0.0.0.0", "192.168.1.5", "::", "hub.example.org"):  # noqa: S104 (that is refused)
        with pytest.raises(ConfigError, match="--open with --host"):
            ServerSettings(Path("hub"), host=host, open=True)
    for host in ("127.0.0.1", "::1", "localhost", "127.8.9.1"):
        assert ServerSettings(Path("hub"), host=host, open=True).host == host


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8731", "127.0.0.1.evil.example", "192.168.1.5", "", "a@b", "x/y"]
)
def test_an_open_hub_answers_to_no_other_name(open_hub: Served, host: str) -> None:
    """A page in a browser here could give its own name this machine's address, and push to it."""
    assert open_hub.ask("GET", "/api/models", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_an_open_hub_answers_to_the_names_of_this_machine(open_hub: Served, host: str) -> None:
    """However a client writes them."""
    assert open_hub.ask("GET", "/api/models", headers={"Host": host}).status_code == 200


def test_a_hub_with_tokens_answers_to_its_own_names(tmp_path: Path) -> None:
    """Addresses, and what it was given with --url; public repos are not for every page that a browser here shows."""
    with served(tmp_path / "hub", url="https://hub.example.org/") as hub:
        ask = lambda host: hub.ask("GET", "/api/models", headers={"Host": host}).status_code  # noqa: E731
        assert [ask(host) for host in ("hub.example.org", "192.168.1.5:8731", "evil.example")] == [200, 200, 421]
        assert create(hub).json()["url"] == f"https://hub.example.org/{REPO}"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "", "https://127.0.0.1.evil.example"]
)
def test_a_page_of_another_site_changes_nothing(open_hub: Served, origin: str) -> None:
    """A browser sends its form without asking, and says where the page is from."""
    for path, body in (("/api/repos/create", {"organization": "a", "name": "b"}), (f"/api/models/{REPO}/tag/main", {})):
        answer = open_hub.ask(
            "POST", path, content=json.dumps(body), headers={"Origin": origin, "Content-Type": "text/plain"}
        )
        assert answer.status_code == 403
    assert open_hub.ask("GET", "/api/models", headers={"Origin": origin}).json() == []


def test_no_page_of_another_site_may_read(open_hub: Served) -> None:
    """The hub never says that one may, also not when a browser asks beforehand."""
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    answers = [open_hub.ask(method, "/api/models", headers=asked) for method in ("GET", "OPTIONS")]
    assert [name for answer in answers for name in answer.headers if name.startswith("access-control")] == []


def test_the_hubs_own_pages_may_send_forms(open_hub: Served) -> None:
    """What comes from the same place is no stranger."""
    body = {"organization": "a", "name": "b"}
    assert open_hub.ask("POST", "/api/repos/create", json=body, headers={"Origin": open_hub.url}).status_code == 200


def test_every_answer_forbids_guessing(hub: Served) -> None:
    """JSON that a browser takes for a page would be one of the hub's own."""
    for path in ("/api/models", "/api/none", f"/{REPO}/resolve/main/x", "/api/whoami-v2"):
        assert hub.ask("GET", path).headers["x-content-type-options"] == "nosniff"


# What comes over the wire.


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
def test_a_body_that_makes_no_sense_is_refused_with_a_sentence(hub: Served, content: bytes) -> None:
    """Wherever it is sent, and never as a mistake of the hub."""
    create(hub)
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
        answer = hub.ask(method, path, token=hub.ada, content=content)
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
def test_a_commit_that_makes_no_sense_is_refused(hub: Served, lines: list[Any]) -> None:
    """And nothing of it is made."""
    create(hub)
    before = hub.ask("GET", f"/api/models/{REPO}").json()["sha"]
    content = wire.body([file("good"), *lines])
    answer = hub.ask("POST", f"/api/models/{REPO}/commit/main", token=hub.ada, content=content)
    assert answer.status_code in (400, 422), answer.text
    assert hub.ask("GET", f"/api/models/{REPO}").json()["sha"] == before


def test_a_query_that_makes_no_sense_is_refused(hub: Served) -> None:
    """With a sentence."""
    create(hub)
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
        answer = hub.ask("GET", f"/api/models?{query}")
        assert answer.status_code == 400, query
    assert hub.ask("GET", "/api/models/%ff/x").status_code == 400


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


# What goes wrong at home.


FAILURES = [
    (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 507, "disk is full"),
    (OSError(errno.EROFS, os.strerror(errno.EROFS)), 503, "cannot write"),
    (sqlite3.OperationalError("database or disk is full"), 500, "did not expect"),
    (RuntimeError("a password: hunter2"), 500, "did not expect"),
]


@pytest.mark.parametrize(("error", "status", "sentence"), FAILURES)
def test_a_failure_is_told_without_what_is_inside(
    hub: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    sentence: str,
) -> None:
    """A full disk says so; what nobody expected gets a number, and its traceback stands in the log."""
    create(hub)

    def fail(*_: object, **__: object) -> None:
        raise error

    for kind, name in ((Uploads, "take_all"), (Repos, "get"), (History, "tree")):
        with monkeypatch.context() as patched:
            patched.setattr(kind, name, fail)
            answer = commit(hub, file("a")) if kind is Uploads else hub.ask("GET", f"/{REPO}/resolve/main/x")
        found, said = refused(answer)
        assert (found, sentence in said) == (status, True)
        assert "hunter2" not in answer.text
    if status == 500:
        assert said.rsplit(" ", 1)[1] in caplog.text
    assert commit(hub, file("a")).status_code == 200


def test_a_sqlite_failure_names_its_cause(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """As SQLite itself says it, by its number."""
    create(hub)
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(Uploads, "take_all", fail)
    assert refused(commit(hub, file("a")))[0] == 507


def test_slow_work_holds_nobody_up(hub: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashing, the gate and the disk are waited for in threads: others are answered meanwhile."""
    create(hub)
    take = Uploads.take_all

    def slow(self: Uploads, contents: list[bytes], repo: int) -> Any:
        time.sleep(1)
        return take(self, contents, repo)

    monkeypatch.setattr(Uploads, "take_all", slow)

    async def both() -> float:
        writing = asyncio.create_task(asyncio.to_thread(commit, hub, file("a")))
        await asyncio.sleep(0.2)
        began = time.monotonic()
        assert (await asyncio.to_thread(hub.ask, "GET", "/api/models")).status_code == 200
        took = time.monotonic() - began
        assert (await writing).status_code == 200
        return took

    assert asyncio.run(both()) < 0.6
