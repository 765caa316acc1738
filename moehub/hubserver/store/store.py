"""The store of a hub: its parts over one root folder."""

import contextlib
import secrets
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.errors import HubError
from moehub.hubserver.store.blobs import Blobs
from moehub.hubserver.store.database import Database
from moehub.hubserver.store.heads import Heads
from moehub.hubserver.store.history import History
from moehub.hubserver.store.repos import Repos
from moehub.hubserver.store.tokens import Tokens
from moehub.hubserver.store.upkeep import LOCK
from moehub.hubserver.store.uploads import Uploads
from moehub.hubserver.store.verdicts import Verdicts
from moehub.hubserver.store.xorbs import Xorbs

DATABASE = "hub.sqlite3"
SECRET = "secret"  # noqa: S105 (a file's name)
_FOLDERS = ("blobs", "incoming")


@dataclass(frozen=True)
class Store:
    """Everything a hub keeps."""

    root: Path
    database: Database
    blobs: Blobs
    uploads: Uploads
    xorbs: Xorbs
    repos: Repos
    heads: Heads
    history: History
    tokens: Tokens
    verdicts: Verdicts
    secret: bytes
    """Signs upload addresses."""


def open_store(root: Path, *, quota: int | None = None, pickles: bool = False, create: bool = False) -> Store:
    """Return the store in `root`.

    Args:
        root: its folder.
        quota: bytes that one namespace may hold; None for no limit.
        pickles: whether files may be pickles by their names.
        create: whether to make a store where there is none.

    Raises:
        HubError: there is none, or it is of another format.
        OSError: the folder cannot be written to.
    """
    if not create and not (root / DATABASE).is_file():
        raise HubError(f"{root} holds no hub (it has no {DATABASE}): `moehub hub serve --root {root}` makes one")
    if not (root / DATABASE).is_file() and root.is_dir() and not unfinished(root):
        raise HubError(f"{root} holds something else than a hub: choose an empty or new folder with --root")
    root.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds private repos
    blobs, database = Blobs(root), Database(root / DATABASE)
    heads, uploads = Heads(database, blobs), Uploads(database, blobs, quota)
    return Store(
        root,
        database,
        blobs,
        uploads,
        Xorbs(root, uploads),
        Repos(database),
        heads,
        History(database, heads, pickles=pickles),
        Tokens(database),
        Verdicts(database),
        _secret(root / SECRET),
    )


def unfinished(root: Path) -> bool:
    """Return whether a folder is empty, or holds a hub whose making was cut short."""
    return all(
        path.name == LOCK
        or path.name.startswith((f".{DATABASE}.", f".{SECRET}."))
        or (path.name in _FOLDERS and not any(path.iterdir()))
        for path in root.iterdir()
    )


def _secret(path: Path) -> bytes:
    """Return the hub's own secret, made where there is none."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):  # another process was quicker: its secret counts
            files.write_private(path, secrets.token_bytes(32))
    return path.read_bytes()
