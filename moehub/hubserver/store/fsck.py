"""Checking everything that a hub holds: each fault one sentence with its cure.

Rows are read at one moment of the database, while the hub serves. Files only ever come before their rows and go after
them, and collections wait: so what is missing is missing.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path

from moehub.console import progress
from moehub.hubserver.store import trees
from moehub.hubserver.store.blobs import Blob
from moehub.hubserver.store.collection import blob_files
from moehub.hubserver.store.repos import MAIN, Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.store.upkeep import alone

_CHUNK = 1 << 20
_RESTORE = "restore the hub from a backup"


@dataclass
class Report:
    """What a check found."""

    repos: int = 0
    commits: int = 0
    blobs: int = 0
    bytes: int = 0
    deep: bool = False
    """Whether every file was read."""
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no fault, and good to know."""


def check(store: Store, *, deep: bool = False) -> Report:
    """Check the database, the files, and that they fit together.

    Args:
        store: of the hub, which may serve meanwhile.
        deep: whether to read every file and compare its sha256.

    Raises:
        HubError: there is other upkeep at the moment.
    """
    report = Report(deep=deep)
    with alone(store.root):
        files = list(blob_files(store.blobs))  # before the rows: what comes in meanwhile is not taken for an orphan
        with store.database.snapshot() as connection:
            report.faults += _database(connection)
            if report.faults:  # nothing else can be relied on
                return report
            report.repos, report.commits = _count(connection, "repo"), _count(connection, "history")
            report.faults += [*_trees(connection), *_commits(connection), *_refs(connection), *_heads(connection)]
            report.notes += _sayings(store, connection)
            blobs = [Blob(*row) for row in connection.execute("select sha256, size from blob order by sha256")]
        report.blobs, report.bytes = len(blobs), sum(blob.size for blob in blobs)
        report.faults += _sizes(store, blobs)
        report.faults += _contents(store, blobs) if deep else ()
        report.notes += _orphans(files, blobs)
    return report


def _database(connection: sqlite3.Connection) -> Iterator[str]:
    try:
        for row in connection.execute("pragma integrity_check"):
            if row[0] != "ok":
                yield f"the database is damaged ({row[0]}): {_RESTORE}"
        for table, count in connection.execute('select "table", count(*) from pragma_foreign_key_check group by 1'):
            yield f"{count} rows of the table {table} refer to nothing: {_RESTORE}"
    except sqlite3.DatabaseError as error:
        yield f"the database is damaged ({error}): {_RESTORE}"


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"select count(*) from {table}").fetchone()[0])  # noqa: S608 (a name of ours)


def _trees(connection: sqlite3.Connection) -> Iterator[str]:
    """Check that lists of files are what they were, and that every file in them is one of the repo's own."""
    for digest, entries in connection.execute("select digest, entries from tree"):
        if trees.digest(entries) != digest:
            yield f"the list of files {digest[:12]} is not what was written: {_RESTORE}"
            return
    for repo, oid, path, sha256 in connection.execute(_UNLINKED):
        yield f"{repo} at {oid[:12]} has {path!r}, but the bytes {sha256[:12]} are not recorded as its own: {_RESTORE}"


def _commits(connection: sqlite3.Connection) -> Iterator[str]:
    for repo, oid, parent in connection.execute(_WITHOUT_PARENT):
        yield f"the commit {oid[:12]} of {repo} follows {parent[:12]}, which is gone: {_RESTORE}"


def _refs(connection: sqlite3.Connection) -> Iterator[str]:
    for repo, kind, name, oid in connection.execute(_DANGLING):
        yield f"the {kind} {name!r} of {repo} names the commit {oid[:12]!r}, which is not there: {_RESTORE}"
    for (repo,) in connection.execute(_WITHOUT_MAIN, (MAIN,)):
        yield f"{repo} has no branch {MAIN}: {_RESTORE}, or delete the repo and push it again"


def _heads(connection: sqlite3.Connection) -> Iterator[str]:
    """Check that lists show the newest commits."""
    for repo, _main, _shown in connection.execute(_STALE, (MAIN,)):
        yield f"lists show another commit of {repo} than its newest: push a change to it, which sets that right"
    for repo, tags, found in connection.execute(_TAGS):
        if sorted(json.loads(tags)) != sorted(json.loads(found)):
            yield f"searching for tags of {repo} finds others than it has: push a change to it, which sets that right"


def _sayings(store: Store, connection: sqlite3.Connection) -> Iterator[str]:
    """Look whether lists say what this version of moehub would say; an earlier one may have said less."""
    other = 0
    for *values, entries in connection.execute(_SAID, (MAIN,)):
        namespace, name, private, gated, number, created, *said = values
        repo = Repo(namespace, name, bool(private), gated, number, created)
        other += tuple(said) != astuple(store.heads.read(repo, trees.from_json(entries)))
    if other:
        yield f"lists say of {other} repos what this version of moehub would not: their next commits set that right"


def _sizes(store: Store, blobs: Sequence[Blob]) -> Iterator[str]:
    for blob in blobs:
        path = store.blobs.path(blob.sha256)
        if not path.is_file():
            yield f"the file {path} is missing: copy it from a backup, or push it again where it came from"
        elif not store.blobs.intact(blob):
            found = path.stat().st_size
            yield f"the file {path} has {found} bytes, expected {blob.size}: copy it from a backup, or push it again"


def _contents(store: Store, blobs: Sequence[Blob]) -> Iterator[str]:
    """Read every file that has its size."""
    whole = [blob for blob in blobs if store.blobs.intact(blob)]
    with progress("reading files", sum(blob.size for blob in whole), in_bytes=True) as advance:
        for blob in whole:
            path, digest = store.blobs.path(blob.sha256), hashlib.sha256()
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    digest.update(chunk)
                    advance(len(chunk))
            if digest.hexdigest() != blob.sha256:
                cure = "copy it from a backup, or delete it and push it again"
                yield f"the file {path} holds other bytes than its name says: {cure}"


def _orphans(files: Sequence[Path], blobs: Sequence[Blob]) -> Iterator[str]:
    known = {blob.sha256 for blob in blobs}
    orphans = [path for path in files if path.name not in known]
    if orphans:
        yield f"{len(orphans)} files belong to nobody: `moehub hub gc` removes them"


_UNLINKED = """
select folded, oid, entry.key, json_extract(entry.value, '$[2]') as sha256
from history join repo on repo.id = history.repo join tree on digest = tree, json_each(entries) entry
where not exists (
    select 1 from link join blob using (sha256) where link.repo = history.repo
    and blob.sha256 = json_extract(entry.value, '$[2]') and size = json_extract(entry.value, '$[1]')
)
"""
_WITHOUT_PARENT = """
select folded, oid, parent from history later join repo on repo.id = later.repo where parent is not null
and not exists (select 1 from history where repo = later.repo and oid = later.parent)
"""
_DANGLING = """
select folded, kind, ref.name, oid from ref join repo on repo.id = ref.repo
where not exists (select 1 from history where repo = ref.repo and oid = ref.oid)
and not (kind = 'branch' and oid = '')
"""
_WITHOUT_MAIN = """
select folded from repo where not exists (select 1 from ref where repo = repo.id and name = ? and kind = 'branch')
"""
_STALE = """
select folded, ref.oid, head.oid from ref join repo on repo.id = ref.repo
left join history on history.repo = ref.repo and history.oid = ref.oid left join head on head.repo = ref.repo
where ref.name = ? and (nullif(ref.oid, ''), history.date) is not (head.oid, head.modified)
"""
_TAGS = """
select folded, tags, (select json_group_array(tag) from tag where tag.repo = head.repo)
from head join repo on repo.id = head.repo
"""
_SAID = """
select namespace, repo.name, private, gated, repo.id, created,
head.kind, base, domain, license, words, card, tags, size, manifest, candidates, members, entries
from head join repo on repo.id = head.repo join ref on ref.repo = repo.id and ref.name = ?
join history on history.repo = repo.id and history.oid = ref.oid join tree on digest = tree
"""
