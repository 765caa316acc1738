"""What nobody refers to is removed, and nothing else, whoever uploads, commits and deletes meanwhile."""

import datetime as dt
import os
import time
from pathlib import Path

import pytest

from moehub.errors import HubError
from moehub.hubserver.store import fsck
from moehub.hubserver.store.collection import Collected, collect
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.store.upkeep import alone
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver.committing import committing
from tests.hubserver.pushes import push, repo_of, upload

NOW = dt.timedelta(0)
NOTHING = Collected(0, 0, 0, 0, 0)


def test_what_commits_refer_to_stays(store: Store) -> None:
    """Of every branch and of every commit, also where a later one deletes the file."""
    first = push(store, "acme/law", {"a": b"1", "b": b"2"})
    push(store, "acme/law", {"a": b"3"}, deleted=("b",))
    store.repos.name(repo := repo_of(store, "acme/law"), "exp", "branch", first)
    push(store, "acme/law", {"c": b"4"}, branch="exp")
    assert collect(store, grace=NOW) == NOTHING
    assert fsck.check(store, deep=True).faults == []
    assert sorted(store.history.tree(repo, first)) == ["a", "b"]


def test_uploads_without_a_commit_go_after_their_grace(store: Store) -> None:
    """Not before: the commit may still come."""
    push(store, "acme/law", {"a": b"1"})
    blob = store.uploads.take_bytes(b"12345", repo_of(store, "acme/law").number)
    assert collect(store) == NOTHING
    assert collect(store, grace=NOW) == Collected(links=1, trees=0, blobs=1, bytes=5, uploads=0)
    assert not store.blobs.path(blob.sha256).exists()
    assert not store.uploads.holds(repo_of(store, "acme/law").number, blob.sha256)
    assert collect(store, grace=NOW) == NOTHING


def test_a_touched_upload_begins_its_grace_anew(store: Store) -> None:
    """The client was told that it is there."""
    repo = repo_of(store, "acme/law")
    blob = store.uploads.take_bytes(b"12345", repo.number)
    with store.database.writing() as connection:
        connection.execute("update link set since = '2000'")
    assert collect(store, dry_run=True).links == 1
    store.uploads.touch(repo.number, blob)
    assert collect(store) == NOTHING


def test_a_deleted_repo_leaves_what_others_use(store: Store) -> None:
    """By its lists of files, and by its files."""
    for name in ("acme/law", "acme/twin"):
        push(store, name, {"shared": b"shared"})
    push(store, "acme/law", {"own": b"own"})
    store.repos.delete(store.repos.get("acme/law", EVERYBODY))
    assert collect(store) == Collected(links=0, trees=1, blobs=1, bytes=3, uploads=0)
    assert fsck.check(store, deep=True).faults == []
    assert fsck.check(store).blobs == 1


def test_a_file_that_one_repo_no_longer_needs_stays_for_another(store: Store) -> None:
    """Each repo's right to commit it is its own."""
    push(store, "acme/law", {"a": b"1"})
    repo = repo_of(store, "acme/other")
    store.uploads.take_bytes(b"1", repo.number)
    assert collect(store, grace=NOW) == Collected(links=1, trees=0, blobs=0, bytes=0, uploads=0)
    assert not store.uploads.holds(repo.number, next(iter(fsck_blobs(store))))


def fsck_blobs(store: Store) -> list[str]:
    return [path.name for path in store.blobs.folder.glob("*/*")]


def test_leftovers_of_a_killed_server_go(store: Store) -> None:
    """A file without a row at once, bytes on their way in after a day of silence, whatever the grace."""
    orphan = store.blobs.path("ab" * 32)
    orphan.parent.mkdir()
    orphan.write_bytes(b"123")
    old, new = (store.blobs.incoming_folder / name for name in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 90000, time.time() - 90000))
    assert collect(store, grace=NOW) == Collected(links=0, trees=0, blobs=1, bytes=3, uploads=1)
    assert (orphan.exists(), old.exists(), new.exists()) == (False, False, True)


def test_a_dry_run_says_what_would_go_and_removes_nothing(store: Store) -> None:
    """And the real one then removes exactly that."""
    push(store, "acme/old", {"a": b"1", "b": b"22"})
    store.repos.delete(repo_of(store, "acme/old"))
    store.uploads.take_bytes(b"12345", repo_of(store, "acme/law").number)
    would = collect(store, grace=NOW, dry_run=True)
    assert would == Collected(links=1, trees=1, blobs=3, bytes=8, uploads=0)
    assert len(fsck_blobs(store)) == 3
    assert collect(store, grace=NOW) == would


def test_only_one_collects(store: Store) -> None:
    """And none while a backup or a check runs, in whatever process."""
    with alone(store.root), pytest.raises(HubError, match=r"is being collected, checked or backed up .*wait"):
        collect(open_store(store.root))
    assert collect(store) == NOTHING


def test_an_upload_between_the_rows_and_the_files_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file lost its row and got it back: it is no longer what the collection took it for."""
    repo = repo_of(store, "acme/law")
    store.uploads.take_bytes(b"again", repo.number)
    from moehub.hubserver.store import collection

    remove = collection._remove

    def late(*arguments: object, **more: object) -> object:
        push(store, repo.id, {"a": b"again"})
        return remove(*arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(collection, "_remove", late)
    assert collect(store, grace=NOW) == Collected(links=1, trees=0, blobs=0, bytes=0, uploads=0)
    assert fsck.check(store, deep=True).faults == []
    assert fsck.check(store).blobs == 1


def test_a_commit_between_looking_and_removing_is_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is removed is looked at again within the transaction that removes it."""
    repo = repo_of(store, "acme/law")
    entry = upload(store, repo, "a", b"1")
    writing = store.database.writing

    def late() -> object:
        monkeypatch.setattr(store.database, "writing", writing)
        store.history.commit(repo, "main", Change({"a": entry}), title="", author="ada")
        return writing()

    monkeypatch.setattr(store.database, "writing", late)
    assert collect(store, grace=NOW) == NOTHING
    assert fsck.check(store, deep=True).faults == []


def test_collections_race_pushes_and_deletions_without_loss(store: Store) -> None:
    """Two processes commit what a third deletes and this one collects, without any grace at all."""
    with committing(store.root, "acme/law", "acme/code") as made:
        deadline = time.monotonic() + 3
        rounds = 0
        while time.monotonic() < deadline:
            push(store, "acme/old", {"shared.safetensors": b"shared", "x": b"%d" % rounds})
            store.repos.delete(repo_of(store, "acme/old"))
            collect(store, grace=dt.timedelta(seconds=2))
            rounds += 1
    assert rounds > 3
    assert sum(made) > 3
    report = fsck.check(store, deep=True)
    assert (report.faults, report.repos, report.commits) == ([], 2, sum(made))
    assert Path(store.blobs.folder).is_dir()
