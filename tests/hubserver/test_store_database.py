"""The SQLite file: made whole, written to by many, and honest about what is wrong with it."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moehub.errors import HubError
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.database import Database
from moehub.hubserver.store.store import Store, open_store


def test_many_processes_make_one_hub(tmp_path: Path) -> None:
    """Whoever is late uses the database and the secret of whoever was first."""
    script = (
        "import sys; from pathlib import Path; from moehub.hubserver.store.store import open_store; "
        "print(open_store(Path(sys.argv[1]), create=True).secret.hex())"
    )
    checkout = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path / "hub")]
    makers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=checkout) for _ in range(4)]
    secrets = {maker.communicate()[0] for maker in makers}
    assert [maker.returncode for maker in makers] == [0] * 4
    assert secrets == {open_store(tmp_path / "hub").secret.hex() + "\n"}


def test_an_error_undoes_the_whole_transaction(store: Store) -> None:
    """Nothing of what came before it is kept."""

    def write() -> None:
        with store.database.writing() as connection:
            connection.execute("insert into blob values ('aa', 1)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert store.database.reading().execute("select count(*) from blob").fetchone()[0] == 0


def test_writers_wait_for_each_other(store: Store) -> None:
    """No thread's addition gets lost or is refused."""
    store.uploads.blobs.folder.mkdir(exist_ok=True)
    with store.database.writing() as connection:
        connection.execute("insert into blob values ('aa', 0)")

    def add(_: int) -> None:
        with store.database.writing() as connection:
            size = connection.execute("select size from blob").fetchone()[0]
            connection.execute("update blob set size = ?", (size + 1,))

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(add, range(100)))
    assert store.database.reading().execute("select size from blob").fetchone()[0] == 100


def test_a_snapshot_sees_one_moment(store: Store) -> None:
    """Whatever others write meanwhile."""

    def write() -> None:
        with store.database.writing() as connection:
            connection.execute("insert into blob values ('aa', 1)")

    with store.database.snapshot() as connection:
        before = connection.execute("select count(*) from blob").fetchone()[0]
        writer = threading.Thread(target=write)
        writer.start()
        writer.join()
        during = connection.execute("select count(*) from blob").fetchone()[0]
    assert (before, during) == (0, 0)
    assert store.database.reading().execute("select count(*) from blob").fetchone()[0] == 1


def test_the_log_is_flushed_at_every_commit(store: Store) -> None:
    """Without it a power loss could take what was promised; and foreign keys hold."""
    connection = store.database.reading()
    names = ("journal_mode", "synchronous", "foreign_keys")
    assert [connection.execute(f"pragma {name}").fetchone()[0] for name in names] == ["wal", 2, 1]


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    """With the cure."""
    (tmp_path / "hub.sqlite3").write_bytes(b"not a database at all" * 100)
    with pytest.raises(HubError, match=r"cannot be opened .*restore it from a backup"):
        open_store(tmp_path)


def test_a_database_of_another_format_is_left_alone(store: Store) -> None:
    """An older moehub does not write to a newer hub."""
    store.database.reading().execute("pragma user_version = 99")
    with pytest.raises(HubError, match="has format 99, this moehub reads format 1: update moehub"):
        Database(store.database.path)


def test_damage_is_answered_in_a_sentence(store: Store) -> None:
    """A request that meets a damaged database is told so."""
    damage = sqlite3.DatabaseError("malformed")
    damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT

    def write() -> None:
        with store.database.writing():
            raise damage

    with pytest.raises(RefusedError, match="database is damaged") as refused:
        write()
    assert refused.value.status == 503
