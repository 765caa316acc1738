"""The SQLite file: its schema, one connection a thread, and transactions that happen whole or not at all."""

import contextlib
import datetime as dt
import os
import sqlite3
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from moehub import files
from moehub.errors import HubError
from moehub.hubserver.refusals import disk_in_sentences

FORMAT = 1
_WAIT = 60.0
"""Seconds that a writer waits for another."""
_SCHEMA = """
create table repo (
    id integer primary key autoincrement,  -- never given again: addresses that were signed for a repo name it
    namespace text not null,
    name text not null,
    folded text not null unique,  -- namespace/name in lower case: names that differ in case alone are one name
    private integer not null,
    gated text,
    created text not null
) strict;
create index repo_private on repo (id) where private;
create table tree (digest text primary key, entries text not null) strict, without rowid;
create table history (
    repo integer not null references repo on delete cascade,
    oid text not null,
    parent text,
    tree text not null references tree,
    title text not null,
    message text not null,
    author text not null,
    date text not null,
    primary key (repo, oid)
) strict, without rowid;
create table ref (
    repo integer not null references repo on delete cascade,
    name text not null,
    kind text not null check (kind in ('branch', 'tag')),
    oid text not null,
    primary key (repo, name)
) strict, without rowid;
create index history_by_tree on history (tree);
create table blob (sha256 text primary key, size integer not null) strict, without rowid;
create table link (
    repo integer not null references repo on delete cascade,
    sha256 text not null references blob,
    since text not null,
    primary key (repo, sha256)
) strict, without rowid;
create index link_by_blob on link (sha256);
create table head (
    repo integer primary key references repo on delete cascade,
    oid text not null,
    modified text not null,
    kind text not null,       -- 'expert', 'moe' or 'other'
    base text,                -- what the card calls its base
    domain text,
    license text,
    words text not null,      -- what search looks through, in lower case
    card text not null,       -- the front matter of README.md, as JSON
    tags text not null,       -- as a JSON list, in order
    size integer not null,    -- bytes of all files
    manifest text,            -- sha256 of an expert's expert.json
    candidates text not null, -- what verdicts on its experts are kept under, as a JSON list
    members text not null     -- a MoE's experts, as a JSON list
) strict;
create index head_by_time on head (modified desc, repo desc);
create index head_by_kind on head (kind, modified desc, repo desc);
create index head_by_base on head (base, kind, modified desc, repo desc);
create index head_by_manifest on head (manifest) where manifest is not null;
create table member (
    repo integer not null references repo on delete cascade,  -- a MoE
    name text not null,                                       -- of an expert in it
    card text not null,                                       -- sha256 of its expert.json
    source text not null,                                     -- namespace/name in lower case, where it came from
    primary key (repo, name)
) strict, without rowid;
create index member_by_card on member (card);
create index member_by_source on member (source);
create table tag (
    tag text not null,
    repo integer not null references repo on delete cascade,
    primary key (tag, repo)
) strict, without rowid;
create index tag_by_repo on tag (repo);
create table token (
    id text primary key,
    digest text not null unique,
    name text not null,
    writes integer not null,
    namespaces text not null,  -- JSON list
    grants text not null,      -- JSON list
    created text not null,
    expires text,
    used text
) strict, without rowid;
create table base (
    repo integer not null references repo on delete cascade,
    oid text not null,
    files text not null,       -- digest of the files that decide: what was identified once is not read again
    digest text not null,      -- of its weights; empty: the commit holds no base
    tokenizer text not null,
    primary key (repo, oid)
) strict, without rowid;
create index base_by_digest on base (digest);
create index base_by_files on base (files);
create table verdict (
    digest text primary key,   -- of the expert's files
    admitted integer not null,
    verdict text not null,     -- as JSON
    checked text not null
) strict, without rowid;
"""


class Database:
    """The SQLite file of a hub.

    A commit is on disk when `writing` ends (`synchronous = full` flushes the log at every commit), so what it refers to
    has to be on disk before: see `Blobs.keep`.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, which is made with its tables where there is none.

        Raises:
            HubError: it is of another format, or no database.
            RefusedError: the disk is full, or cannot be written to.
        """
        self.path = path
        self._local = threading.local()
        if not path.exists():
            with disk_in_sentences():
                _make(path)
        try:
            found = self.reading().execute("pragma user_version").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise HubError(f"{path} cannot be opened ({error}): restore it from a backup, or free its disk") from error
        if found != FORMAT:
            raise HubError(f"{path} has format {found}, this moehub reads format {FORMAT}: update moehub")

    def reading(self) -> sqlite3.Connection:
        """Return this thread's connection, for a statement that reads."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = _connect(self.path)
        return connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside a transaction that excludes other writers; an error undoes all of it.

        Raises:
            RefusedError: the disk is full or cannot be written to, or other writers take too long.
        """
        with disk_in_sentences(), _transaction(self.reading()) as connection:
            yield connection

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection that sees one moment for as long as the block lasts, whatever others write."""
        connection = self.reading()
        connection.execute("begin deferred")
        try:
            yield connection
        finally:
            connection.execute("rollback")

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


def _make(path: Path) -> None:
    """Write a database without repos: beside its place, and then linked to it, so that there is never half of one."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        connection = _connect(Path(name))
        with contextlib.closing(connection), _transaction(connection):
            for statement in _SCHEMA.split(";\n"):
                connection.execute(statement)
            connection.execute(f"pragma user_version = {FORMAT}")
        with contextlib.suppress(FileExistsError):  # another process was quicker: its database counts
            path.hardlink_to(name)
    finally:
        Path(name).unlink()
    files.flush(path.parent)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, timeout=_WAIT)
    try:
        connection.execute("pragma journal_mode = wal")
    except sqlite3.OperationalError:
        connection.close()
        if os.access(path.parent, os.W_OK) or path.with_name(f"{path.name}-wal").exists():
            raise
        # On a disk that nobody can write to, SQLite cannot keep its log, and needs none.
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True, isolation_level=None)
    connection.row_factory = sqlite3.Row
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    connection.execute("begin immediate")
    try:
        yield connection
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def now() -> str:
    """Return the time as the database and the API write it: UTC, milliseconds."""
    return written(dt.datetime.now(dt.UTC))


def written(time: dt.datetime) -> str:
    """Return a time as the database and the API write it; their order is the order of time."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"
