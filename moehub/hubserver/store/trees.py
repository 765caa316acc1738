"""What a commit holds: path → entry, and which paths may stand beside each other."""

import dataclasses
import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from moehub.hubserver.refusals import RefusedError

_LONGEST_PATH = 1024
_LONGEST_PART = 255
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".dill", ".npz")
_UNSAFE = frozenset('<>:"|?*\\')
"""What some system's file names cannot hold."""
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(1, 10))})
"""What some system takes for a device, whatever follows the first dot."""


@dataclass(frozen=True)
class Entry:
    """One file of a commit."""

    oid: str
    """What git calls it: the sha1 of the file, or of the pointer to a large one."""
    size: int
    sha256: str
    """Its blob."""
    lfs: bool
    """Whether the client uploaded it as a large file."""

    @property
    def etag(self) -> str:
        """What the client names its cached copy after."""
        return self.sha256 if self.lfs else self.oid

    @property
    def pointer_size(self) -> int:
        """Bytes of the pointer that git would hold instead of a large file."""
        return len(_pointer(self.sha256, self.size))


Tree: TypeAlias = Mapping[str, Entry]


def regular(content: bytes, sha256: str) -> Entry:
    """Return the entry of a small file."""
    return Entry(_git_oid(content), len(content), sha256, lfs=False)


def large(sha256: str, size: int) -> Entry:
    """Return the entry of a file that was uploaded as a large one."""
    return Entry(_git_oid(_pointer(sha256, size)), size, sha256, lfs=True)


def to_json(tree: Tree) -> str:
    """Return a tree as text that is the same for equal trees."""
    return json.dumps({path: dataclasses.astuple(tree[path]) for path in sorted(tree)}, separators=(",", ":"))


def from_json(text: str) -> dict[str, Entry]:
    """Return the tree that `to_json` wrote."""
    return {path: Entry(*values) for path, values in json.loads(text).items()}


def digest(text: str) -> str:
    """Return the sha256 of a tree's JSON."""
    return hashlib.sha256(text.encode()).hexdigest()


def check_path(path: str, *, pickles: bool = False) -> str:
    """Return `path` if a file of a repo may have it.

    Raises:
        RefusedError: it leads elsewhere, some system cannot store it, or it is a pickle and those are not allowed.
    """
    parts = path.split("/")
    if not path or _bytes(path) > _LONGEST_PATH or any(not _plain(part) for part in parts):
        raise RefusedError(400, f"{path!r:.200} cannot be a file's name here: expected plain names joined by /")
    if not pickles and parts[-1].lower().endswith(_PICKLES):
        raise RefusedError(
            400, f"{path!r} is a pickle by its name, which can run code when it is loaded: save it as safetensors"
        )
    return path


def _plain(part: str) -> bool:
    return (
        part not in ("", ".", "..")
        and part.lower() != ".git"
        and part.lower().partition(".")[0] not in _DEVICES
        and _bytes(part) <= _LONGEST_PART
        and not part.endswith((" ", "."))
        and not any(character in _UNSAFE or unicodedata.category(character)[0] == "C" for character in part)
    )


def _bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))


def check_tree(paths: Iterable[str]) -> None:
    """Refuse files that could not stand in one folder.

    Raises:
        RefusedError: a file is also a folder, or two names differ in case alone.
    """
    files: dict[str, str] = {}
    folders: dict[str, str] = {}
    for path in sorted(paths):
        parts = path.split("/")
        _claim(files, path, "differ in case alone")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            _claim(folders, folder, "are folders that differ in case alone")
    clash = sorted(files.keys() & folders.keys())
    if clash:
        raise RefusedError(400, f"{files[clash[0]]!r} would be a file and a folder: rename one of them")


def _claim(names: dict[str, str], path: str, how: str) -> None:
    taken = names.setdefault(unicodedata.normalize("NFC", path).casefold(), path)
    if taken != path:
        raise RefusedError(400, f"{path!r} and {taken!r} {how}, and some systems hold only one: rename one of them")


def _pointer(sha256: str, size: int) -> bytes:
    """Return what git holds instead of a large file (git-lfs specification, version 1)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
