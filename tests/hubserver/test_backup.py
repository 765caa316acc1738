"""A backup is a hub's folder itself, complete at one moment, whatever is pushed while it is made."""

import os
import shutil
from pathlib import Path

import pytest

from moehub.errors import HubError
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import backup, fsck
from moehub.hubserver.store.backup import Saved, back_up
from moehub.hubserver.store.collection import collect
from moehub.hubserver.store.database import now
from moehub.hubserver.store.store import DATABASE, SECRET, Store, open_store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver.committing import committing
from tests.hubserver.pushes import push, repo_of

FILES = {"README.md": b"hello", "adapter_model.safetensors": bytes(1000)}


@pytest.fixture
def law(store: Store) -> Store:
    push(store, "acme/law", FILES)
    return store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "backups" / "hub"


@pytest.fixture
def another_disk(law: Store, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001 (hubs are made with links, too)
    """Files of the hub cannot be linked."""

    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)


def contents(store: Store, name: str) -> dict[str, bytes]:
    repo = store.repos.get(name, EVERYBODY)
    tree = store.history.tree(repo, store.repos.resolve(repo, "main"))
    return {path: store.blobs.path(entry.sha256).read_bytes() for path, entry in tree.items()}


def healthy(folder: Path) -> Store:
    """Return a backup as a store, after every byte of it was checked."""
    store = open_store(folder)
    assert fsck.check(store, deep=True).faults == []
    return store


def test_a_backup_holds_what_the_hub_holds(law: Store, folder: Path) -> None:
    """Repos, tokens and the secret; it is a hub, and can be written to without a change to the first."""
    _, secret = law.tokens.create("ada", ["acme"], writes=True)
    assert back_up(law, folder) == Saved(repos=1, blobs=2, bytes=1005, new=2, linked=2)
    copy = healthy(folder)
    assert contents(copy, "acme/law") == FILES
    assert copy.tokens.visitor(secret) == law.tokens.visitor(secret)
    assert copy.secret == law.secret
    assert (folder.stat().st_mode & 0o777, (folder / SECRET).stat().st_mode & 0o777) == (0o700, 0o600)
    push(copy, "acme/law", {"README.md": b"changed"})
    assert contents(law, "acme/law") == FILES


def test_on_one_disk_files_are_links(law: Store, folder: Path) -> None:
    """They take no space, and stay when the hub's are removed."""
    back_up(law, folder)
    for path in law.blobs.folder.glob("*/*"):
        assert path.stat().st_nlink == 2
        path.unlink()
    assert contents(healthy(folder), "acme/law") == FILES


@pytest.mark.usefixtures("another_disk")
def test_on_another_disk_files_are_copies(law: Store, folder: Path) -> None:
    """Of their own."""
    assert back_up(law, folder).linked == 0
    assert {path.stat().st_nlink for path in folder.glob("blobs/*/*")} == {1}
    assert contents(healthy(folder), "acme/law") == FILES


def test_a_second_backup_adds_what_is_new(law: Store, folder: Path) -> None:
    """And is the hub as it is now: also what was deleted is gone."""
    back_up(law, folder)
    push(law, "acme/law", {"README.md": b"again"})
    push(law, "acme/new", {"a": b"1"})
    law.repos.delete(repo_of(law, "acme/new"))
    push(law, "acme/newer", {"a": b"2"})
    assert back_up(law, folder) == Saved(repos=2, blobs=5, bytes=1012, new=3, linked=3)
    copy = healthy(folder)
    assert contents(copy, "acme/law") == FILES | {"README.md": b"again"}
    with pytest.raises(RefusedError):
        copy.repos.get("acme/new", EVERYBODY)
    assert back_up(law, folder).new == 0


def test_a_backup_that_is_looked_at_takes_the_next(law: Store, folder: Path) -> None:
    """Somebody may serve it: they see the old moment, and then the new one."""
    back_up(law, folder)
    copy = open_store(folder)
    assert contents(copy, "acme/law") == FILES
    push(law, "acme/law", {"README.md": b"again"})
    back_up(law, folder)
    assert contents(copy, "acme/law") == FILES | {"README.md": b"again"}
    healthy(folder)


def test_a_backup_during_pushes_is_complete(law: Store, folder: Path) -> None:
    """Again and again, each with every file of every commit it holds."""
    with committing(law.root, "acme/law", "acme/code") as made:
        for _ in range(4):
            saved = back_up(law, folder)
            copy = healthy(folder)
            assert saved.repos <= 2
            assert fsck.check(copy).commits <= fsck.check(law).commits
    assert sum(made) > 3
    back_up(law, folder)
    assert fsck.check(healthy(folder)).commits == sum(made) + 1
    assert contents(open_store(folder), "acme/code") == contents(law, "acme/code")


def test_no_collection_removes_what_a_backup_needs(law: Store, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits; deleting repos meanwhile does no harm."""
    copy_files = backup._copy

    def late(*arguments: object) -> int:
        law.repos.delete(law.repos.get("acme/law", EVERYBODY))
        with pytest.raises(HubError, match="is being collected, checked or backed up"):
            collect(law)
        return copy_files(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(backup, "_copy", late)
    back_up(law, folder)
    assert contents(healthy(folder), "acme/law") == FILES


def test_a_backup_that_fails_leaves_the_one_before(law: Store, folder: Path) -> None:
    """A file that the hub lost is named, and the cure."""
    back_up(law, folder)
    push(law, "acme/law", {"README.md": b"again"})
    lost = next(path for path in law.blobs.folder.glob("*/*") if path.read_bytes() == b"again")
    lost.unlink()
    with pytest.raises(HubError, match=f"the file {lost} is damaged or missing: `moehub hub fsck`"):
        back_up(law, folder)
    assert contents(healthy(folder), "acme/law") == FILES
    assert list((folder / "incoming").iterdir()) == []


@pytest.mark.usefixtures("another_disk")
def test_a_damaged_file_is_not_copied(law: Store, folder: Path) -> None:
    """What is copied is compared with its sha256; no backup is there afterwards, and then one can be made."""
    damaged = max(law.blobs.folder.glob("*/*"), key=lambda path: path.stat().st_size)
    damaged.chmod(0o640)
    damaged.write_bytes(b"\1" * 1000)
    with pytest.raises(HubError, match="is damaged: `moehub hub fsck --deep`"):
        back_up(law, folder)
    assert not (folder / DATABASE).exists()
    damaged.write_bytes(bytes(1000))
    back_up(law, folder)
    healthy(folder)


def test_other_folders_are_left_alone(law: Store, tmp_path: Path, folder: Path) -> None:
    """Something else, another hub, the hub itself, and one within the other."""
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text").touch()
    another = open_store(tmp_path / "another", create=True).root
    shutil.copytree(law.root, folder)
    for place, reason in (
        (tmp_path / "thesis", "holds something else than a copy"),
        (another, "holds something else than a copy"),
        (folder, "was not made by `moehub hub backup`"),
        (law.root, "lie in each other"),
        (law.root / "backup", "lie in each other"),
        (tmp_path, "lie in each other"),
    ):
        with pytest.raises(HubError, match=reason):
            back_up(law, place)


def test_a_backup_that_was_used_as_a_hub_is_left_alone(law: Store, folder: Path) -> None:
    """Somebody went on with it when the first hub broke: their commits are nowhere else."""
    back_up(law, folder)
    push(open_store(folder), "acme/law", {"README.md": b"went on"})
    with pytest.raises(HubError, match="holds commits that were made to it after its last backup"):
        back_up(law, folder)
    assert contents(open_store(folder), "acme/law")["README.md"] == b"went on"


def test_commits_while_the_snapshot_is_taken_are_no_use_of_the_backup(
    law: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may be in it."""
    monkeypatch.setattr(backup, "now", lambda: (push(law, "acme/law", {"a": os.urandom(8)}), now())[1])
    for _ in range(3):
        back_up(law, folder)
