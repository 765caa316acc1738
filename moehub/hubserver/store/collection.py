"""Removing what nobody refers to: blobs of deleted repos, uploads without a commit, bytes whose sender went away.

Rows go first, in one transaction; then files without a row, each inside a transaction that sees that there still is
none. `Uploads.take` gives a file its place and its row inside one transaction, too: so a file that somebody uploads at
the same moment either has its row already, and stays, or is put in its place again after it was removed. A collection
that is killed leaves files without rows, which the next one removes.
"""

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moehub.hubserver.store.blobs import Blobs
from moehub.hubserver.store.database import Database, written
from moehub.hubserver.store.store import Store
from moehub.hubserver.store.upkeep import alone

GRACE = dt.timedelta(days=1)
_SHORTEST_SILENCE = 86400.0
"""Seconds for which a sender may always be silent, however short the grace: parts of large files come hours apart."""


@dataclass(frozen=True)
class Collected:
    """What a collection removed, or would remove."""

    links: int
    """Uploads that no commit of their repo refers to."""
    trees: int
    """Lists of files that were only in deleted repos."""
    blobs: int
    """Files."""
    bytes: int
    """How much space those took."""
    uploads: int
    """Uploads that broke off."""


def collect(store: Store, *, grace: dt.timedelta = GRACE, dry_run: bool = False) -> Collected:
    """Remove what nobody refers to.

    Args:
        store: of the hub, which may serve meanwhile.
        grace: how long an upload waits for its commit.
        dry_run: whether to remove nothing and say what would be.

    Raises:
        HubError: there is other upkeep at the moment.
    """
    before = written(dt.datetime.now(dt.UTC) - grace)
    with alone(store.root):
        links, trees, referred = _collect_rows(store.database, before, dry_run=dry_run)
        orphans = [path for path in blob_files(store.blobs) if path.name not in referred]
        sizes = [_remove(store.database, path, dry_run=dry_run) for path in orphans]
        uploads = store.blobs.abandoned(max(grace.total_seconds(), _SHORTEST_SILENCE))
        if not dry_run:
            store.xorbs.remove_expired()
            for path in uploads:
                path.unlink(missing_ok=True)
    removed = [size for size in sizes if size is not None]
    return Collected(links, trees, len(removed), sum(removed), len(uploads))


def blob_files(blobs: Blobs) -> Iterator[Path]:
    """Yield every file that stands where blobs do."""
    for folder in sorted(blobs.folder.iterdir()):
        if folder.is_dir():
            yield from sorted(folder.iterdir())


class _DryRunError(Exception):
    """Undoes a transaction."""


def _collect_rows(database: Database, before: str, *, dry_run: bool) -> tuple[int, int, set[str]]:
    """Remove rows that nobody refers to; return how many links and trees, and the blobs that are left."""
    # Which repos to look at is found without keeping writers out; what is removed is looked at again inside.
    with database.snapshot() as connection:
        repos = [row["repo"] for row in connection.execute(_WITH_UNUSED_LINKS, (before,))]
    with contextlib.suppress(_DryRunError), database.writing() as connection:
        links = sum(connection.execute(_UNUSED_LINKS, (repo, before, repo)).rowcount for repo in repos)
        trees = connection.execute("delete from tree where digest not in (select tree from history)").rowcount
        connection.execute("delete from blob where sha256 not in (select sha256 from link)")
        referred = {row["sha256"] for row in connection.execute("select sha256 from blob")}
        if dry_run:
            raise _DryRunError
    return links, trees, referred


def _remove(database: Database, path: Path, *, dry_run: bool) -> int | None:
    """Remove a file without a row and return its size, or None if it has one by now."""
    with database.writing() as connection:
        if not dry_run and _has_row(connection, path.name):
            return None
        size = path.stat().st_size
        if not dry_run:
            path.unlink()
    return size


def _has_row(connection: sqlite3.Connection, sha256: str) -> bool:
    return connection.execute("select 1 from blob where sha256 = ?", (sha256,)).fetchone() is not None


_IN_COMMITS = (
    "select history.repo, json_extract(entry.value, '$[2]') from history join tree on digest = tree, "
    "json_each(entries) entry"
)
_WITH_UNUSED_LINKS = f"select distinct repo from link where since <= ? and (repo, sha256) not in ({_IN_COMMITS})"  # noqa: S608 (all of it is ours)
_UNUSED_LINKS = (
    f"delete from link where repo = ? and since <= ? and (repo, sha256) not in ({_IN_COMMITS} where history.repo = ?)"  # noqa: S608 (the same)
)
