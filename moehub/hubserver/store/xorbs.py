"""Xorbs on their way to become files: what the client uploads through Xet, kept for a day.

    xorbs/40512-1f6a2b8e/acme/17/ab12…     an epoch / a namespace / a repo / a xorb

The client remembers which xorbs it has sent, and afterwards sends only what is new. So the epoch is part of the address
that it uploads to: in another epoch it knows of nothing, and sends everything. A xorb serves the repo that it was sent
to and no other, or whoever knew the hash of a private file's xorb could rebuild the file in a repo of their own.
"""

import contextlib
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.blobs import Blob, Incoming
from moehub.hubserver.store.chunks import Chunk, chunks_of, name_of, unpack
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.shards import Rebuild, Term, files_of
from moehub.hubserver.store.uploads import Uploads

_EPOCH_SECONDS = 12 * 3600
"""How long an epoch is the newest; its xorbs stay for one epoch more."""
_EPOCH = re.compile(r"(\d+)-[0-9a-f]{8}")
_REMEMBERED = 4
"""Xorbs whose chunks a rebuild remembers."""
_LOCKS = 64


class Xorbs:
    """The folder of xorbs."""

    def __init__(self, root: Path, uploads: Uploads) -> None:
        self.folder, self.uploads = root / "xorbs", uploads
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def epoch(self) -> str:
        """Return the epoch that is the newest; a new one ends what is older than the one before it."""
        now = _epoch_now()
        found = sorted(name for name, number in self._epochs() if number == now)
        if found:
            return found[0]
        self.remove_expired()
        name = f"{now}-{secrets.token_hex(4)}"
        (self.folder / name).mkdir(parents=True, exist_ok=True)
        return name

    def remove_expired(self) -> int:
        """Remove xorbs of epochs before the last one, and return how many."""
        removed = 0
        for name, number in self._epochs():
            if number < _epoch_now() - 1:
                removed += sum(path.is_file() for path in (self.folder / name).rglob("*"))
                shutil.rmtree(self.folder / name, ignore_errors=True)
        return removed

    def _epochs(self) -> list[tuple[str, int]]:
        names = [path.name for path in self.folder.iterdir()] if self.folder.is_dir() else []
        return [(name, int(found[1])) for name in names if (found := _EPOCH.fullmatch(name))]

    def place(self, epoch: str, repo: Repo) -> Path:
        """Return the folder of a repo's xorbs.

        Raises:
            RefusedError: the epoch is over.
        """
        if not _EPOCH.fullmatch(epoch) or not (self.folder / epoch).is_dir():
            raise RefusedError(404, "the time for this upload is over: start it again")
        return self.folder / epoch / repo.namespace.lower() / str(repo.number)

    def take(self, incoming: Incoming, place: Path, name: str, repo: Repo) -> bool:
        """Keep a xorb that was received; return False where it is there already.

        Raises:
            RefusedError: it is none, or not the one of this name, or the namespace's quota is used up.
        """
        self._require_room(place, repo, incoming.size)
        incoming.finish()
        with incoming.path.open("rb") as file:
            found = name_of(file)
        if found != name:
            raise RefusedError(400, f"the xorb that arrived is {found[:12]}, announced was {name[:12]}: send it again")
        if (place / name).is_file():
            return False
        place.mkdir(parents=True, exist_ok=True)
        incoming.path.replace(place / name)
        return True

    def _require_room(self, place: Path, repo: Repo, size: int) -> None:
        self.uploads.require_room(repo.number, size)
        if self.uploads.quota is None:
            return
        waiting = sum(path.stat().st_size for path in place.parent.rglob("*") if path.is_file())
        if waiting + size > self.uploads.quota:
            raise RefusedError(
                507, f"{waiting} bytes are on their way to {repo.namespace} already: try again in a day, or without Xet"
            )

    def rebuild(self, shard: BinaryIO, place: Path, repo: Repo, *, largest: int | None = None) -> list[Blob]:
        """Make blobs of the files that a shard describes, and return them.

        Args:
            shard: what the client sent.
            place: where the repo's xorbs are.
            repo: which may commit the blobs.
            largest: bytes that a file may have; None for no limit.

        Raises:
            RefusedError: it is no shard, a xorb is missing, or a file is not what the shard says.
        """
        return [self._file(file, place, repo, largest) for file in files_of(shard)]

    def _file(self, file: Rebuild, place: Path, repo: Repo, largest: int | None) -> Blob:
        size = file.size
        if largest is not None and size > largest:
            raise RefusedError(
                413, f"a file of {size} bytes is larger than the {largest} that this hub takes: split it"
            )
        expected = Blob(file.sha256, size) if file.sha256 is not None else None
        with self._alone(repo, file.sha256):
            if expected is not None and self.uploads.touch(repo.number, expected):
                return expected
            self.uploads.require_room(repo.number, size)
            with self.uploads.blobs.receiving() as incoming:
                for data in _content(file, place):
                    incoming.write(data)
                return self.uploads.take(incoming, repo.number, expected)

    @contextlib.contextmanager
    def _alone(self, repo: Repo, sha256: str | None) -> Iterator[None]:
        """Let one file be rebuilt once at a time: a client that lost patience asks again while we are at it."""
        with self._locks[hash((repo.number, sha256)) % _LOCKS]:
            yield


def _content(file: Rebuild, place: Path) -> Iterator[bytes]:
    """Yield the bytes of a file chunk by chunk; of a few xorbs it is remembered where their chunks lie."""
    known: dict[str, list[Chunk]] = {}
    for term in file.terms():
        try:
            with (place / term.xorb).open("rb") as xorb:
                chunks = known.pop(term.xorb, None) or chunks_of(xorb)
                known[term.xorb] = chunks  # the last is the newest
                yield from unpack(xorb, _chosen(chunks, term))
        except FileNotFoundError as error:
            raise RefusedError(400, f"xorb {term.xorb[:12]} was not uploaded to this repo: send it first") from error
        if len(known) > _REMEMBERED:
            del known[next(iter(known))]


def _chosen(chunks: list[Chunk], term: Term) -> list[Chunk]:
    chosen = chunks[term.first : term.end]
    if not 0 <= term.first < term.end <= len(chunks) or sum(chunk.size for chunk in chosen) != term.size:
        raise RefusedError(
            400,
            f"the shard takes {term.size} bytes in chunks {term.first} to {term.end} of xorb {term.xorb[:12]}, "
            f"which has {len(chunks)} chunks of other sizes: send the file again",
        )
    return chosen


def _epoch_now() -> int:
    return int(time.time() // _EPOCH_SECONDS)
