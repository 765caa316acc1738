"""Files and folders that appear whole or not at all, and their digests."""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

_CHUNK = 1 << 20
_FLUSHED_AT_ONCE = 8
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(value: Any) -> str:
    """Return `value` as JSON that is the same to the byte for equal values: sorted keys, one final newline."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield the path of an empty file beside `path`; on success it is flushed to disk and takes `path`'s place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all: beside its place, flushed to disk, then renamed."""
    with new_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_private(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write a file that its owner alone can read, whole or not at all.

    Raises:
        FileExistsError: something stands at `path`, and `replace` does not say that it may go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # readable by its owner alone
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        if replace:
            temporary.replace(path)
        else:
            path.hardlink_to(temporary)  # Unlike a rename, it fails where somebody was quicker.
    finally:
        temporary.unlink(missing_ok=True)
    flush(path.parent)


def files_below(folder: Path) -> list[Path]:
    """Return every file below `folder`, relative to it, in the order of their names."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def tree_digest(folder: Path) -> str:
    """Return one sha256 over the names and bytes of every file below `folder`, in hex."""
    return digest_of({name.as_posix(): sha256(folder / name) for name in files_below(folder)})


def digest_of(digests: Mapping[str, str]) -> str:
    """Return the `tree_digest` of a folder that holds files of these names and sha256s."""
    digest = hashlib.sha256()
    for name in sorted(digests, key=PurePosixPath):
        digest.update(f"{name}\0{digests[name]}\n".encode())
    return digest.hexdigest()


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes `path`'s place in one step.

    What stood at `path` before is exchanged atomically where the system can do it and removed
    afterwards. On an error `path` stays exactly as it was. A link to a folder stays a link.

    Raises:
        NotADirectoryError: a file stands at `path`.
    """
    path = path.resolve()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    building.chmod(0o755)
    try:
        yield building
        written = [building / name for name in files_below(building)]
        for file in written:
            file.chmod(0o644)  # safetensors writes files that only their owner can read
        with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:  # the disk does together what waits together
            list(pool.map(flush, written))
        flush(building)
        if path.exists():
            _exchange(building, path)
        else:
            building.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(first: Path, second: Path) -> None:
    """Swap two folders, in one step where the kernel offers it (Linux `renameat2`), else in two renames."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is not None:
        names = os.fsencode(first), os.fsencode(second)
        if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
    aside = first.with_name(first.name + ".previous")
    second.rename(aside)
    first.rename(second)
    aside.rename(first)
