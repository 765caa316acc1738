"""What a stranger may not do: leave a repo, see or change what is not theirs, find tokens."""

import datetime as dt
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moehub.hubserver import access_log
from moehub.hubserver.store.database import written
from tests.hubserver import wire
from tests.hubserver.conftest import Served, served
from tests.hubserver.wire import REPO, address, commit, committed, create, file, large, raw, refused, upload

CONTENT = b"\0tensors"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A hub that no test here changes: it has a repo, bytes for it, and a private repo."""
    with served(tmp_path_factory.mktemp("kept") / "hub") as hub:
        create(hub)
        upload(hub, CONTENT)
        create(hub, "acme/secret", visibility="private")
        committed(hub, file("README.md", b"hidden"), repo="acme/secret")
        yield hub


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
def test_a_commit_cannot_leave_its_repo(kept: Served, path: str) -> None:
    """Neither by small files nor by large ones, and the client learns it before it uploads."""
    assert commit(kept, file(path)).status_code == 400
    assert commit(kept, large(path, CONTENT)).status_code == 400
    files = {"files": [{"path": path, "size": 1, "sample": ""}]}
    assert kept.ask("POST", f"/api/models/{REPO}/preupload/main", token=kept.ada, json=files).status_code == 400


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
def test_nothing_but_a_repos_files_can_be_read(kept: Served, path: str) -> None:
    """Whatever a path is made of, it is looked up and never opened."""
    answer = raw(kept, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.split()[1] in (b"404", b"400")
    assert b"root:" not in answer
    assert kept.store.secret not in answer


@pytest.mark.parametrize(
    "name", ["../x", "a..b", "/a", "a/", "a//b", "-a", ".a", "a b", "a" * 201, "0" * 40, "a\nb", ""]
)
def test_a_branch_or_tag_is_named_plainly(kept: Served, name: str) -> None:
    """Not like a path that leads elsewhere, nor like a commit."""
    assert kept.ask("POST", f"/api/models/{REPO}/tag/main", token=kept.ada, json={"tag": name}).status_code == 400


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
def test_a_private_repo_is_not_there_for_others(kept: Served, method: str, path: str, more: dict[str, Any]) -> None:
    """Strangers and those of another namespace hear the same as about a repo that does not exist."""
    for token in (None, kept.eve):
        answer = kept.ask(method, path, token=token, **more)
        other = kept.ask(method, path.replace("acme/secret", "acme/none"), token=token, **_renamed(more))
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")
        assert answer.json()["error"] == other.json()["error"].replace("acme/none", "acme/secret")


def _renamed(more: dict[str, Any]) -> dict[str, Any]:
    return {**more, "json": {**more["json"], "name": "none"}} if "name" in more.get("json", {}) else more


@pytest.mark.parametrize(("method", "path", "more"), PRIVATE)
def test_who_may_read_may_not_write(kept: Served, method: str, path: str, more: dict[str, Any]) -> None:
    """A read-only token of the namespace sees its private repos, and changes nothing."""
    reads = (method == "GET" and "xet" not in path) or "paths-info" in path
    answer = kept.ask(method, path, token=kept.reader, **more)
    assert answer.status_code in ((200, 307) if reads else (403,))


def test_a_private_repo_is_not_listed_for_others(kept: Served) -> None:
    """Nor found by what is in it."""

    def names(token: str | None, query: str = "") -> list[str]:
        return [each["id"] for each in kept.ask("GET", f"/api/models{query}", token=token).json()]

    assert names(None) == names(kept.eve) == names(None, "?author=acme") == [REPO]
    assert names(kept.eve, "?search=secret") == []
    assert names(kept.reader) == ["acme/secret", REPO]


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
