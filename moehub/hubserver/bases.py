"""The bases at hand on a hub: those its operator named, and those that were pushed to it, by their digests."""

import contextlib
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub import files
from moehub.errors import HubError
from moehub.hub import split_reference
from moehub.hubserver.examiner import Examiner, FailedError
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.blobs import Blobs
from moehub.hubserver.store.identities import Identities, Identity
from moehub.hubserver.store.repos import MAIN, Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.store.trees import Entry
from moehub.hubserver.visitor import EVERYBODY

_CONFIG, _WEIGHTS = "config.json", ".safetensors"
_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")
_BUDGET = 30.0
"""Seconds that one push may spend on finding its base among repos that nobody looked at yet."""
_NO_BASE = Identity("", "")


@dataclass(frozen=True)
class KnownBase:
    """A base whose files are at hand."""

    reference: str
    digest: str
    """`moehub.base.weights_digest`."""
    tokenizer: str
    """`moehub.base.tokenizer_digest`."""
    trusted: bool
    """Whether the hub's operator named it: only then are forward passes made with it."""
    folder: Path | None = None
    """Where it lies, for a folder."""
    files: Mapping[str, Entry] | None = None
    """Name → entry, for a repo of this hub."""

    def lay_out(self, blobs: Blobs, place: Path) -> dict[str, Any]:
        """Return what the gate's process has to know, with the base's files in its folder or linked to `place`."""
        if self.files is not None:
            linked(blobs, self.files, place)
        return {
            "reference": self.reference,
            "digest": self.digest,
            "tokenizer": self.tokenizer,
            "trusted": self.trusted,
            "folder": str(self.folder or place),
        }


class Bases:
    """Every base at hand."""

    def __init__(self, store: Store, examiner: Examiner, workplace: Path, named: tuple[str, ...]) -> None:
        """Keep the parts; `named` are folders, or repos of this hub as `org/name[@revision]`."""
        self.store, self.examiner, self.workplace, self.named = store, examiner, workplace, named
        self.identities = Identities(store.database)
        self._folders: dict[str, KnownBase] = {}
        self._lock = threading.Lock()

    def find(self, digest: str, reference: str, asking: Repo) -> KnownBase | None:
        """Return the base with this digest, or None where it is not at hand.

        Args:
            digest: of its weights, as an expert's card claims.
            reference: what the card calls it: where to look first.
            asking: the repo that the expert is pushed to; a private base serves its own namespace alone.
        """
        if not digest:
            return None
        for name in self.named:
            base = self._folder(name) if Path(name).is_dir() else self._named_repo(name)
            if base is not None and base.digest == digest:
                return base
        return self._pushed(digest, reference, asking)

    def _folder(self, name: str) -> KnownBase | None:
        with self._lock:
            if name not in self._folders:
                folder = Path(name).absolute()
                found = self.examiner.ask({"do": "identify", "folder": str(folder)})
                base = KnownBase(folder.name, found["digest"], found["tokenizer"], trusted=True, folder=folder)
                self._folders[name] = base
            return self._folders[name]

    def _named_repo(self, name: str) -> KnownBase | None:
        with contextlib.suppress(HubError):  # pushed later, or gone
            reference, revision = split_reference(name)
            repo = self.store.repos.get(reference, EVERYBODY)
            return self._identified(repo, self.store.repos.resolve(repo, revision or MAIN), trusted=True)
        return None

    def _pushed(self, digest: str, reference: str, asking: Repo) -> KnownBase | None:
        """Look among the repos of this hub: those known by their digest first, then those nobody looked at yet."""
        called = reference.partition("@")[0]
        for repo, oid in self.identities.holding(digest, called):
            if _serves(repo, asking):
                return self._identified(repo, oid)
        ends = time.monotonic() + _BUDGET
        for repo, oid in self.identities.unread(called):
            if time.monotonic() > ends:
                break
            base = self._identified(repo, oid)
            if base is not None and base.digest == digest and _serves(repo, asking):
                return base
        return None

    def _identified(self, repo: Repo, oid: str, *, trusted: bool = False) -> KnownBase | None:
        """Return the base that a commit holds, read if nobody read it before, or None where it holds none."""
        tree = self.store.history.tree(repo, oid)
        inside = {path: entry for path, entry in tree.items() if "/" not in path and path.endswith(_SUFFIXES)}
        together = files.digest_of({path: entry.sha256 for path, entry in inside.items()})
        identity = self.identities.get(repo, oid, together)
        if identity is None:
            identity = self._read(inside)
            self.identities.put(repo, oid, together, identity)
        if not identity.digest:
            return None
        return KnownBase(repo.id, identity.digest, identity.tokenizer, trusted=trusted, files=inside)

    def _read(self, inside: Mapping[str, Entry]) -> Identity:
        if _CONFIG not in inside or not any(path.endswith(_WEIGHTS) for path in inside):
            return _NO_BASE
        with tempfile.TemporaryDirectory(dir=self.workplace) as place:
            folder = linked(self.store.blobs, inside, Path(place) / "base")
            try:
                found = self.examiner.ask({"do": "identify", "folder": str(folder)})
            except FailedError:  # whatever it is, nobody can make an expert for it
                return _NO_BASE
        return Identity(str(found.get("digest", "")), str(found.get("tokenizer", "")))


def _serves(base: Repo, asking: Repo) -> bool:
    """Return whether a base may be used for a repo: a private or gated one serves its own namespace alone."""
    return not (base.private or base.gated) or base.namespace == asking.namespace


def linked(blobs: Blobs, entries: Mapping[str, Entry], folder: Path) -> Path:
    """Make a folder with files under their names, as links to their blobs, and return it.

    Raises:
        RefusedError: 409 if bytes are no longer there.
    """
    folder.mkdir()
    for name, entry in entries.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        _link(blobs.path(entry.sha256), place, name)
    return folder


def _link(blob: Path, place: Path, name: str) -> None:
    try:
        place.hardlink_to(blob)
    except FileNotFoundError as error:
        raise RefusedError(409, f"the bytes of {name!r} are not here any more: send the file again") from error
    except OSError:  # a file system without links, or with as many to this blob as it can have
        shutil.copyfile(blob, place)
