"""Bytes become blobs of the repo that they were sent to, and of no other."""

import hashlib
import re

import pytest

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.blobs import Blob
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERYBODY


@pytest.fixture
def repo(store: Store) -> Repo:
    return store.repos.create("acme/law", EVERYBODY)


def announced(store: Store, repo: Repo, content: bytes, blob: Blob) -> Blob:
    with store.blobs.receiving() as incoming:
        incoming.write(content)
        return store.uploads.take(incoming, repo.number, blob)


def test_a_repo_holds_what_was_uploaded_to_it(store: Store, repo: Repo) -> None:
    """By sha256 and size."""
    blob = store.uploads.take_bytes(b"weights", repo.number)
    assert blob == Blob(hashlib.sha256(b"weights").hexdigest(), 7)
    assert store.uploads.holds(repo.number, blob.sha256)
    assert store.uploads.holds(repo.number, blob.sha256, 7)
    assert not store.uploads.holds(repo.number, blob.sha256, 8)


def test_another_repo_does_not_hold_it(store: Store, repo: Repo) -> None:
    """Knowing the sha256 of a private file opens nothing."""
    blob = store.uploads.take_bytes(b"a private file", repo.number)
    other = store.repos.create("eve/copy", EVERYBODY)
    assert not store.uploads.holds(other.number, blob.sha256)
    assert not store.uploads.touch(other.number, blob)
    store.uploads.take_bytes(b"a private file", other.number)
    assert store.uploads.holds(other.number, blob.sha256)


@pytest.mark.parametrize("wrong", [Blob("0" * 64, 7), Blob(hashlib.sha256(b"weights").hexdigest(), 8)])
def test_other_bytes_than_announced_are_refused(store: Store, repo: Repo, wrong: Blob) -> None:
    """Whether it is the sha256 or the size, and nothing is kept."""
    with pytest.raises(RefusedError, match=r"announced were .*send the file again") as refused:
        announced(store, repo, b"weights", wrong)
    assert refused.value.status == 422
    assert list(store.blobs.folder.iterdir()) == []
    assert list(store.blobs.incoming_folder.iterdir()) == []


def test_a_file_that_the_disk_lost_comes_back(store: Store, repo: Repo) -> None:
    """It counts as not there, so the client sends it again; so does one that was cut off."""
    blob = store.uploads.take_bytes(b"weights", repo.number)
    place = store.blobs.path(blob.sha256)
    place.unlink()
    assert not store.uploads.holds(repo.number, blob.sha256)
    store.uploads.take_bytes(b"weights", repo.number)
    assert place.read_bytes() == b"weights"
    place.chmod(0o640)
    place.write_bytes(b"weig")
    assert not store.uploads.holds(repo.number, blob.sha256)
    store.uploads.take_bytes(b"weights", repo.number)
    assert place.read_bytes() == b"weights"


def test_an_upload_to_a_repo_that_was_deleted_is_refused(store: Store, repo: Repo) -> None:
    """And the repo that is made next gets nothing of it."""
    store.repos.delete(repo)
    following = store.repos.create("eve/next", EVERYBODY)
    assert following.number != repo.number
    with pytest.raises(RefusedError, match="was deleted during the upload") as refused:
        store.uploads.take_bytes(b"weights", repo.number)
    assert (refused.value.status, refused.value.code) == (404, "RepoNotFound")
    assert list(store.blobs.folder.iterdir()) == []


def test_a_namespace_keeps_to_its_quota(store: Store) -> None:
    """However it is written, over all of its repos, and whatever was there before."""
    store.uploads.quota = 10
    law, medicine = (store.repos.create(name, EVERYBODY) for name in ("acme/law", "ACME/medicine"))
    other = store.repos.create("acme2/law", EVERYBODY)
    store.uploads.take_bytes(b"123456", law.number)
    store.uploads.take_bytes(b"123456", law.number)
    assert store.uploads.used(medicine.number) == 6
    sentence = "5 bytes more than the 6 that are used would exceed the namespace's quota of 10"
    with pytest.raises(RefusedError, match=re.escape(sentence)) as refused:
        store.uploads.take_bytes(b"12345", medicine.number)
    assert refused.value.status == 507
    store.uploads.take_bytes(b"1234", medicine.number)
    store.uploads.take_bytes(b"1234567890", other.number)
    assert store.uploads.used(law.number) == 10


def test_touching_begins_the_time_anew(store: Store, repo: Repo) -> None:
    """What the client was told is there stays until its commit."""
    blob = store.uploads.take_bytes(b"weights", repo.number)
    with store.database.writing() as connection:
        connection.execute("update link set since = '2000'")
    assert store.uploads.touch(repo.number, blob)
    assert store.database.reading().execute("select since from link").fetchone()[0] > "2020"
