"""A copy of a hub, taken while it serves, which is a hub's folder itself.

First the database as it stands at one moment, then the files that it refers to: a file is always there before its row,
and collections wait, so none can be missing. The copy becomes valid at the very end, in one step: until then it is not
there, or what it was before.
"""

import contextlib
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.console import Advance, progress
from moehub.errors import HubError
from moehub.hubserver.refusals import disk_in_sentences
from moehub.hubserver.store.blobs import Blob, Blobs
from moehub.hubserver.store.database import now
from moehub.hubserver.store.store import DATABASE, SECRET, Store, unfinished
from moehub.hubserver.store.upkeep import alone

_CHUNK = 1 << 20
_LAST = "last-backup"
"""Marks a folder as a copy, and says when it was one: later commits were made to the copy itself."""


@dataclass(frozen=True)
class Saved:
    """What a backup holds."""

    repos: int
    blobs: int
    bytes: int
    new: int
    """Files that were not in the folder before."""
    linked: int
    """How many of those are second names of the hub's own files, on the same disk, and take no space."""


def back_up(store: Store, folder: Path) -> Saved:
    """Copy a hub to a folder that is new, empty, or an earlier copy of the same hub.

    Raises:
        HubError: the folder holds something else, or files of the hub are damaged, or there is other upkeep.
        OSError: the folder cannot be written to.
    """
    folder = folder.resolve()
    _check(store, folder)
    with alone(store.root):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with alone(folder), disk_in_sentences():
            return _back_up(store, folder)


def _back_up(store: Store, folder: Path) -> Saved:
    copies = Blobs(folder)
    _copy_secret(store, folder)  # first: whose copy this will be
    snapshot = copies.incoming_folder / f"{DATABASE}.snapshot"
    try:
        with _opened(snapshot) as taken:
            store.database.reading().backup(taken)
            moment = now()  # no commit in the copy is later
            blobs = [Blob(*row) for row in taken.execute("select sha256, size from blob order by sha256")]
            repos = taken.execute("select count(*) from repo").fetchone()[0]
        missing = [blob for blob in blobs if not copies.intact(blob)]
        linked = _copy(store.blobs, copies, missing)
        files.write_text(folder / _LAST, f"{moment}\n")
        _switch(snapshot, folder / DATABASE)
    finally:
        for path in copies.incoming_folder.glob(f"{DATABASE}.snapshot*"):
            path.unlink()
    return Saved(repos, len(blobs), sum(blob.size for blob in blobs), len(missing), linked)


def _check(store: Store, folder: Path) -> None:
    """Refuse a folder that is no earlier copy of this very hub, or was used as a hub of its own since."""
    root = store.root.resolve()
    if folder.is_relative_to(root) or root.is_relative_to(folder):
        raise HubError(f"{folder} and the hub's folder {root} lie in each other: choose a folder elsewhere")
    if not folder.is_dir() or unfinished(folder):
        return
    secret = folder / SECRET
    if not secret.is_file() or secret.read_bytes() != store.secret:
        raise HubError(f"{folder} holds something else than a copy of {root}: choose an empty or new folder")
    if not (folder / DATABASE).is_file():
        return
    if not (folder / _LAST).is_file():
        raise HubError(f"{folder} is a hub's folder, but was not made by `moehub hub backup`: choose another folder")
    with _opened(folder / DATABASE) as connection:
        newest = connection.execute("select max(date) from history").fetchone()[0] or ""
    if newest > (folder / _LAST).read_text(encoding="utf-8").strip():
        raise HubError(f"{folder} holds commits that were made to it after its last backup: choose another folder")


def _copy(hub: Blobs, copies: Blobs, missing: Sequence[Blob]) -> int:
    """Link or copy files and return how many were linked; what is copied is compared with its sha256."""
    linked = 0
    with progress("copying files", sum(blob.size for blob in missing), in_bytes=True) as advance:
        for blob in missing:
            if not hub.intact(blob):
                raise HubError(f"the file {hub.path(blob.sha256)} is damaged or missing: `moehub hub fsck` says more")
            if _link(hub, copies, blob):
                linked += 1
                advance(blob.size)
            else:
                _copy_bytes(hub, copies, blob, advance)
    return linked


def _link(hub: Blobs, copies: Blobs, blob: Blob) -> bool:
    """Give a file a second name among the copies, which takes no space; return False where the disk is another."""
    name = copies.incoming_folder / secrets.token_hex(16)
    try:
        name.hardlink_to(hub.path(blob.sha256))
    except OSError:
        return False
    copies.keep(name, blob)
    return True


def _copy_bytes(hub: Blobs, copies: Blobs, blob: Blob, advance: Advance) -> None:
    with hub.path(blob.sha256).open("rb") as file, copies.receiving() as incoming:
        while chunk := file.read(_CHUNK):
            incoming.write(chunk)
            advance(len(chunk))
        if incoming.finish() != blob:
            raise HubError(f"the file {hub.path(blob.sha256)} is damaged: `moehub hub fsck --deep` says more")
        copies.keep(incoming.path, blob)


def _copy_secret(store: Store, folder: Path) -> None:
    if not (folder / SECRET).is_file():
        with files.new_file(folder / SECRET) as new:
            new.write_bytes(store.secret)
        (folder / SECRET).chmod(0o600)


def _switch(snapshot: Path, database: Path) -> None:
    """Make the snapshot the copy's database.

    The first time by a rename. Later by a transaction in the database that is there: its log may hold what was not yet
    written into it, and would be taken for the new one's.
    """
    if not database.is_file():
        snapshot.replace(database)
        files.flush(database.parent)
        return
    with _opened(snapshot) as taken, _opened(database) as copy:
        taken.backup(copy)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        yield connection
