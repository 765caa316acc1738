"""Every kind of damage is found, and named with its cure; a healthy hub has none."""

import sqlite3

import pytest

from moehub.hubserver.store import fsck
from moehub.hubserver.store.store import Store
from tests.hubserver.committing import committing
from tests.hubserver.pushes import push, repo_of

FILES = {"README.md": b"---\ntags: [x]\n---\n", "adapter_model.safetensors": bytes(1000)}


@pytest.fixture
def law(store: Store) -> Store:
    """A hub with two commits, a branch, a tag, and a repo without commits."""
    first = push(store, "acme/law", FILES)
    push(store, "acme/law", {"a": b"1"})
    store.repos.name(repo_of(store, "acme/law"), "exp", "branch", first)
    store.repos.name(repo_of(store, "acme/law"), "v1", "tag", first)
    repo_of(store, "acme/empty")
    return store


def broken(store: Store, statement: str) -> fsck.Report:
    """Check after a change that nothing but damage makes."""
    with sqlite3.connect(store.database.path) as connection:
        connection.execute(statement)
    connection.close()
    return fsck.check(store)


def test_a_healthy_hub_has_no_fault(law: Store) -> None:
    """And is counted."""
    assert fsck.check(law, deep=True) == fsck.Report(
        repos=2, commits=2, blobs=3, bytes=len(FILES["README.md"]) + 1001, deep=True, faults=[], notes=[]
    )


def test_a_hub_that_is_being_written_to_has_no_fault(store: Store) -> None:
    """However often one looks."""
    with committing(store.root, "acme/law"):
        reports = [fsck.check(store, deep=True) for _ in range(8)]
    assert [fault for report in reports for fault in report.faults] == []


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("delete from blob", "rows of the table link refer to nothing"),
        ("delete from history where parent is null", "which is gone"),
        (
            "update ref set oid = 'ffff' where name = 'v1'",
            "the tag 'v1' of acme/law names the commit 'ffff', which is not",
        ),
        ("update ref set oid = 'ffff' where name = 'exp'", "the branch 'exp' of acme/law names the commit 'ffff'"),
        ("delete from ref where name = 'main'", "acme/empty has no branch main"),
        ("update tree set entries = replace(entries, '1000', '1001')", "is not what was written"),
        ("delete from link where sha256 in (select sha256 from blob where size = 1)", "has 'a', but the bytes"),
        (
            "update head set oid = (select oid from history where parent is null)",
            "lists show another commit of acme/law",
        ),
        ("update head set modified = '2000'", "lists show another commit of acme/law"),
        ("delete from head", "lists show another commit of acme/law"),
        ("delete from tag where tag = 'x'", "searching for tags of acme/law finds others"),
    ],
)
def test_damaged_rows_are_found(law: Store, statement: str, fault: str) -> None:
    """Each is named, with what to do."""
    report = broken(law, statement)
    found = [each for each in report.faults if fault in each]
    assert len(found) == 1, report.faults
    assert ": restore the hub from a backup" in found[0] or ": push a change to it" in found[0]


def test_what_another_version_says_is_a_note(law: Store) -> None:
    """Not a fault: the next commit sets it right."""
    report = broken(law, "update head set license = 'mit'")
    assert report.faults == []
    assert report.notes == [
        "lists say of 1 repos what this version of moehub would not: their next commits set that right"
    ]


def test_a_missing_file_is_found(law: Store) -> None:
    """And one that was cut off."""
    large, small = sorted(law.blobs.folder.glob("*/*"), key=lambda path: -path.stat().st_size)[:2]
    large.unlink()
    small.chmod(0o640)
    small.write_bytes(b"")
    faults = sorted(fsck.check(law).faults)
    assert sorted(fault.partition(":")[0] for fault in faults) == sorted(
        [f"the file {large} is missing", f"the file {small} has 0 bytes, expected {len(FILES['README.md'])}"]
    )
    assert all("copy it from a backup" in fault for fault in faults)


def test_a_flipped_bit_is_found_by_reading(law: Store, capsys: pytest.CaptureFixture[str]) -> None:
    """Which takes --deep, and shows how far it is."""
    large = max(law.blobs.folder.glob("*/*"), key=lambda path: path.stat().st_size)
    large.chmod(0o640)
    large.write_bytes(bytes(500) + b"\1" + bytes(499))
    assert fsck.check(law).faults == []
    [fault] = fsck.check(law, deep=True).faults
    assert fault == (
        f"the file {large} holds other bytes than its name says: copy it from a backup, or delete it and push it again"
    )
    assert "1019/1019 bytes" in capsys.readouterr().err
    large.unlink()
    push(law, "acme/law", FILES)
    assert fsck.check(law, deep=True).faults == []


def test_files_of_nobody_are_a_note(law: Store) -> None:
    """A killed server may leave them."""
    orphan = law.blobs.path("ab" * 32)
    orphan.parent.mkdir()
    orphan.touch()
    report = fsck.check(law)
    assert (report.faults, report.notes) == ([], ["1 files belong to nobody: `moehub hub gc` removes them"])


def test_a_damaged_database_is_found(law: Store) -> None:
    """Nothing else is looked at then."""
    law.database.reading().execute("pragma wal_checkpoint(truncate)")
    table = "select rootpage from sqlite_master where name = 'history'"
    page = law.database.reading().execute(table).fetchone()[0] - 1
    law.database.close()
    with law.database.path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(b"\xff" * 64)
    report = fsck.check(law)
    assert report.faults
    assert all(
        "the database is damaged" in fault and "restore the hub from a backup" in fault for fault in report.faults
    )
    assert report.repos == 0
