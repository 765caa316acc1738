"""A disk that is full, or that cannot be written to: a sentence, nothing by halves, and reading goes on."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from moehub.errors import HubError
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import fsck
from moehub.hubserver.store.backup import back_up
from moehub.hubserver.store.collection import collect
from moehub.hubserver.store.store import Store, open_store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver.pushes import push, repo_of

LARGE = bytes(600_000)


def mount(*arguments: str) -> None:
    done = subprocess.run(["/bin/mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte, in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    if not Path("/bin/mount").is_file():
        pytest.skip("there is no mount here")
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place))
    yield place
    subprocess.run(["/bin/umount", "--lazy", str(place)], check=True)


@pytest.fixture
def small(small_disk: Path) -> Iterator[Store]:
    """A hub on it, with one file."""
    store = open_store(small_disk / "hub", create=True)
    push(store, "acme/law", {"README.md": b"hello"})
    yield store
    store.database.close()


def read(store: Store) -> bytes:
    repo = store.repos.get("acme/law", EVERYBODY)
    entry = store.history.tree(repo, store.repos.resolve(repo, "main"))["README.md"]
    return store.blobs.path(entry.sha256).read_bytes()


def fill(folder: Path) -> Path:
    """Fill the disk to the last byte."""
    rubbish = folder / "rubbish"
    with rubbish.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return rubbish


def test_an_upload_that_does_not_fit_is_refused(small: Store) -> None:
    """Nothing of it is kept, and what was there is served; later it succeeds."""
    push(small, "acme/law", {"x.safetensors": LARGE})
    with pytest.raises(RefusedError, match="the hub's disk is full: free space on it") as refused:
        push(small, "acme/new", {"x.safetensors": os.urandom(len(LARGE))})
    assert refused.value.status == 507
    assert list(small.blobs.incoming_folder.iterdir()) == []
    assert read(small) == b"hello"
    assert fsck.check(small, deep=True).faults == []
    assert small.repos.refs(repo_of(small, "acme/new"))[0].oid == ""
    small.repos.delete(repo_of(small, "acme/law"))
    collect(small)
    push(small, "acme/new", {"x.safetensors": os.urandom(len(LARGE))})
    assert fsck.check(small, deep=True).faults == []


def test_with_a_full_disk_reading_goes_on(small: Store) -> None:
    """Every change is refused in a sentence, whole; who is who is still known; with space again all succeeds."""
    _, secret = small.tokens.create("ada", ["acme"], writes=True)
    small.database.reading().execute("pragma wal_checkpoint(truncate)")
    rubbish = fill(small.root.parent)
    for change in (
        lambda: push(small, "acme/law", {"README.md": b"changed"}),
        lambda: small.repos.create("acme/new", EVERYBODY),
        lambda: small.tokens.create("eve", ["eve"]),
        lambda: small.repos.delete(small.repos.get("acme/law", EVERYBODY)),
    ):
        with pytest.raises(RefusedError) as refused:
            change()
        assert refused.value.status == 507
        assert "the hub's disk is full" in str(refused.value)
    assert read(small) == b"hello"
    visitor = small.tokens.visitor(secret)
    assert visitor is not None
    assert visitor.name == "ada"
    assert fsck.check(small, deep=True).faults == []
    rubbish.unlink()
    push(small, "acme/law", {"README.md": b"changed"})
    assert read(small) == b"changed"
    assert [token.name for token in small.tokens.list()] == ["ada"]
    report = fsck.check(small, deep=True)
    assert (report.faults, report.notes) == ([], [])


def test_a_hub_is_made_whole_or_not_at_all(small_disk: Path) -> None:
    """On a disk without space; and with space again it is made."""
    rubbish = fill(small_disk)
    with pytest.raises((HubError, OSError)):
        open_store(small_disk / "hub", create=True)
    rubbish.unlink()
    store = open_store(small_disk / "hub", create=True)
    assert fsck.check(store).faults == []


def test_a_backup_to_a_full_disk_is_whole_or_not_at_all(store: Store, small_disk: Path) -> None:
    """The one before stays, and with space again the next is made."""
    push(store, "acme/law", {"README.md": b"hello"})
    copy = small_disk / "copy"
    back_up(store, copy)
    push(store, "acme/law", {"x.safetensors": os.urandom(2 * len(LARGE))})
    with pytest.raises(RefusedError, match="disk is full"):
        back_up(store, copy)
    assert read(open_store(copy)) == b"hello"
    assert fsck.check(open_store(copy), deep=True).faults == []
    assert list((copy / "incoming").iterdir()) == []
    mount("-o", "remount,size=4m", str(small_disk))
    back_up(store, copy)
    assert fsck.check(open_store(copy), deep=True).commits == 2


@pytest.fixture
def read_only(store: Store, tmp_path: Path) -> Iterator[Path]:
    """A hub on a disk that nobody can write to."""
    push(store, "acme/law", {"README.md": b"hello"})
    store.database.close()
    place = tmp_path / "read-only"
    place.mkdir()
    mount("--bind", str(store.root), str(place))
    mount("-o", "remount,ro,bind", str(place))
    yield place
    subprocess.run(["/bin/umount", "--lazy", str(place)], check=True)


def test_a_hub_that_cannot_be_written_to_is_read(read_only: Path) -> None:
    """Every change is refused in a sentence."""
    store = open_store(read_only)
    assert read(store) == b"hello"
    assert fsck.check(store, deep=True).faults == []
    for change in (
        lambda: push(store, "acme/law", {"README.md": b"changed"}),
        lambda: store.repos.create("acme/new", EVERYBODY),
        lambda: store.tokens.create("eve", ["eve"]),
    ):
        with pytest.raises(RefusedError, match="the hub cannot write to its disk") as refused:
            change()
        assert refused.value.status == 503
    assert read(store) == b"hello"


def test_a_hub_cannot_be_made_where_nobody_can_write(read_only: Path) -> None:
    """And says so."""
    with pytest.raises(OSError, match="Read-only file system"):
        open_store(read_only / "incoming" / "hub", create=True)
