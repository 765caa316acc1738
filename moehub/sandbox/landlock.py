"""Landlock: which files a process may reach, whoever it runs as (Linux 5.13 and later)."""

import contextlib
import ctypes
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from moehub.sandbox import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_OF_FILES = (1 << 0) | (1 << 1) | _READ_FILE | (1 << 14) | (1 << 15)
"""Execute, write, read, truncate, ioctl: what can be allowed for a file that is no folder."""
_EXECUTE = 1 << 0
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Version of Landlock → every way to reach a file that it can forbid; later ones as 5."""
_TCP = 0b11
"""To bind, and to connect; from version 4."""
_SCOPES = 0b11
"""Abstract Unix sockets, and signals to processes outside; from version 6."""


def version() -> int:
    """Return the version of Landlock in this kernel, 0 where there is none."""
    with contextlib.suppress(OSError):
        return kernel.system(_CREATE, None, ctypes.c_size_t(0), 1)
    return 0


def restrict(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Let this process reach nothing but what lies below these folders and files, and execute nothing; for good.

    Raises:
        OSError: the kernel has no Landlock, or refuses.
    """
    every = _KNOWN[min(version(), 5)] if version() else 0
    size = 8 if version() < 4 else 16 if version() < 6 else 24
    attributes = struct.pack("=QQQ", every, _TCP, _SCOPES)[:size]
    rules = kernel.system(_CREATE, attributes, ctypes.c_size_t(size), 0)
    try:
        for path in readable:
            _allow(rules, path, _READ_FILE | _READ_FOLDER)
        for path in writable:
            _allow(rules, path, every & ~_EXECUTE)
        kernel.system(_RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: str, access: int) -> None:
    if not Path(path).exists():
        return
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = access if Path(path).is_dir() else access & _OF_FILES
        kernel.system(_ADD, rules, 1, struct.pack("=Qi", allowed, place), 0)
    finally:
        os.close(place)
