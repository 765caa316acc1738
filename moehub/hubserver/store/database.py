"""The SQLite file: its schema, one connection a thread, and transactions that happen whole or not at all."""

import contextlib
import datetime as dt
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from moehub.errors import HubError

FORMAT = 1
_WAIT = 60.0
"""Seconds that a writer waits for another."""
_SCHEMA = """
create table repo (
    id integer primary key,
    namespace text not null,
    name text not null,
    folded text not null unique,  -- namespace/name in lower case: names that differ in case alone are one name
    private integer not null,
    gated text,
    created text not null
) strict;
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
    tags text not null        -- as a JSON list, in order
) strict;
create index head_by_time on head (modified desc, repo desc);
create index head_by_kind on head (kind, modified desc, repo desc);
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
create table verdict (
    digest text primary key,   -- of the expert's files
    admitted integer not null,
    verdict text not null,     -- as JSON
    checked text not null
) strict, without rowid;
"""


class Database:
    """The SQLite file of a hub."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make its tables where there are none.

        Raises:
            HubError: it is of another format, or no database.
        """
        self.path = path
        self._local = threading.local()
        try:
            with self.writing() as connection:
                found = connection.execute("pragma user_version").fetchone()[0]
                if not found:
                    for statement in _SCHEMA.split(";\n"):
                        connection.execute(statement)
                    connection.execute(f"pragma user_version = {FORMAT}")
        except sqlite3.DatabaseError as error:
            raise HubError(f"{path} cannot be opened ({error}): restore it from a backup, or free its disk") from error
        if found not in (0, FORMAT):
            raise HubError(f"{path} has format {found}, this moehub reads format {FORMAT}: update moehub")

    def reading(self) -> sqlite3.Connection:
        """Return this thread's connection, for a statement that reads."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(self.path, isolation_level=None, timeout=_WAIT)
            connection.row_factory = sqlite3.Row
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = full")
            connection.execute("pragma foreign_keys = on")
            self._local.connection = connection
        return connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Yield a connection inside a transaction that excludes other writers; an error undoes all of it."""
        connection = self.reading()
        connection.execute("begin immediate")
        try:
            yield connection
            connection.execute("commit")
        except BaseException:
            if connection.in_transaction:
                connection.execute("rollback")
            raise

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None


def now() -> str:
    """Return the time as the database and the API write it: UTC, milliseconds."""
    return written(dt.datetime.now(dt.UTC))


def written(time: dt.datetime) -> str:
    """Return a time as the database and the API write it; their order is the order of time."""
    return time.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{time.microsecond // 1000:03d}Z"
