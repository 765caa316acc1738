"""seccomp: which system calls a process may make. What is not listed fails with EPERM.

No process can be made (threads can), nothing executed, no socket opened but a pair that is connected to itself, and no
signal sent to another process. So whatever the code does ends with the one process that it runs in.
"""

import errno
import os
import platform
import struct
from collections.abc import Sequence

from moehub.sandbox import kernel
from moehub.sandbox.syscalls import JUDGED, MACHINES, ON_SCRATCH, PLAIN

_LOAD, _EQUAL, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x45, 0x54, 0x06
_KILL, _ALLOW, _ERROR = 0x80000000, 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
"""Where these stand in what the kernel hands to a filter (struct seccomp_data)."""
_CLONE_THREAD = 0x00010000
_AF_UNIX, _SOCK_STREAM, _SOCK_KIND = 1, 1, 0xF
_FCNTL = (0, 1, 2, 3, 4, 5, 6, 7, 36, 37, 38, 1030)
"""Duplicate, flags and locks; not those by which a file's owner is sent signals."""
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""Is it a terminal, how large, how much is there to read, non-blocking, close on exec or not."""

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, value."""


def supported() -> bool:
    """Return whether the calls of this machine's processor are known."""
    return platform.machine() in MACHINES


def restrict(*, scratch: bool) -> None:
    """Judge this process's calls from now on, for good; `scratch` lets it make, rename and remove files.

    Raises:
        OSError: the kernel refuses.
    """
    kernel.filter_calls(b"".join(struct.pack("=HBBI", *one) for one in program(os.getpid(), scratch=scratch)))


def program(process: int, *, scratch: bool) -> list[Instruction]:
    """Return the filter of a process that has this number, for this machine's processor."""
    machine = MACHINES[platform.machine()]
    lines = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, machine.architecture), (_RETURN, 0, 0, _KILL)]
    lines.append((_LOAD, 0, 0, _NUMBER))
    for name in sorted((PLAIN | ON_SCRATCH if scratch else PLAIN) & machine.numbers.keys()):
        lines += [(_EQUAL, 0, 1, machine.numbers[name]), (_RETURN, 0, 0, _ALLOW)]
    for name in sorted(JUDGED & machine.numbers.keys()):
        judged = _judge(name, process)
        lines += [(_EQUAL, 0, len(judged), machine.numbers[name]), *judged]
    return [*lines, (_RETURN, 0, 0, _ERROR | errno.EPERM)]


def _judge(name: str, process: int) -> list[Instruction]:
    """Return what decides about one call, whichever way: it never falls through."""
    if name == "clone3":  # its arguments cannot be seen; libraries fall back to clone
        return [(_RETURN, 0, 0, _ERROR | errno.ENOSYS)]
    if name == "clone":
        return [(_LOAD, 0, 0, _ARGUMENTS), (_ANY_BIT, 0, 1, _CLONE_THREAD), *_either()]
    if name == "socketpair":
        kind = [(_LOAD, 0, 0, _argument(1)), (_AND, 0, 0, _SOCK_KIND), (_EQUAL, 0, 1, _SOCK_STREAM)]
        return [(_LOAD, 0, 0, _argument(0)), (_EQUAL, 0, 4, _AF_UNIX), *kind, *_either()]
    if name in {"fcntl", "ioctl"}:
        return _one_of(1, _FCNTL if name == "fcntl" else _IOCTL)
    return _one_of(0, (0,) if name == "prlimit64" else (process,))


def _one_of(argument: int, values: Sequence[int]) -> list[Instruction]:
    last = len(values) - 1
    tests = [(_EQUAL, last - index, 1 if index == last else 0, value) for index, value in enumerate(values)]
    return [(_LOAD, 0, 0, _argument(argument)), *tests, *_either()]


def _either() -> list[Instruction]:
    return [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERROR | errno.EPERM)]


def _argument(index: int) -> int:
    """Return where the lower half of an argument stands; both kinds of processor are little-endian."""
    return _ARGUMENTS + 8 * index
