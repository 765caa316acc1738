"""What goes wrong at home: a full disk, a mistake, slow work."""

import asyncio
import errno
import os
import sqlite3
import time
from typing import Any

import pytest

from moehub.hubserver.store.history import History
from moehub.hubserver.store.repos import Repos
from moehub.hubserver.store.uploads import Uploads
from tests.hubserver.conftest import Served
from tests.hubserver.wire import REPO, commit, create, file, refused

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
