"""Digests of large files, remembered: a file that did not change since it was read is not read again.

What is remembered lies in the user's own cache, under the file's identity: device, inode, size and time of its last
change. Whoever can forge these can write to that cache too.
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from moehub import files

_LARGE = 1 << 16
"""Smaller files are read again: that is as quick."""


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    if path.stat().st_size < _LARGE:
        return files.sha256(path)
    return remembered("sha256", [path], lambda: files.sha256(path))


def note_sha256(path: Path, digest: str) -> None:
    """Remember the sha256 of a file that was written from verified bytes just now."""
    if path.stat().st_size >= _LARGE:
        _keep(_key("sha256", [path]), digest)


def remembered(kind: str, paths: Sequence[Path], compute: Callable[[], str]) -> str:
    """Return `compute()`, or what it returned when these files were last read.

    Args:
        kind: what is computed: different digests of one file are kept apart.
        paths: the files that it is computed from.
        compute: reads the files.
    """
    key = _key(kind, paths)
    with contextlib.suppress(OSError):
        if known := _place(key).read_text(encoding="ascii"):
            return known
    value = compute()
    _keep(key, value)
    return value


def _key(kind: str, paths: Sequence[Path]) -> str:
    stamps = [(one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in (path.stat() for path in paths)]
    return hashlib.sha256(json.dumps([kind, stamps]).encode()).hexdigest()


def _place(key: str) -> Path:
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "moehub" / "digests" / key


def _keep(key: str, value: str) -> None:
    place = _place(key)
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        # What is lost when the machine stops is made again: nothing is flushed to the disk.
        descriptor, name = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(value)
        Path(name).replace(place)
