"""The calls to the Linux kernel that Python has no names for, each of which fails with an OSError."""

import ctypes
import os
import struct

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
READ_ONLY, NO_SETUID, NO_DEVICES = 1, 2, 4
"""What `seal` can make of a mount."""
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_SYS_MOUNT_SETATTR = 442
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_CAPABILITIES_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def checked(result: int, what: str) -> int:
    """Return what a call returned.

    Raises:
        OSError: it returned −1; `what` goes into the sentence.
    """
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result


def system(number: int, *arguments: object) -> int:
    """Make a system call by its number."""
    return checked(int(_libc.syscall(ctypes.c_long(number), *arguments)), f"system call {number}")


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    checked(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Put a file system, or another view of a folder or file, at a place."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode() or None)
    checked(_libc.mount(*arguments, ctypes.c_ulong(flags), options.encode() or None), f"mount {target}")


def unmount(target: str) -> None:
    """Take a mount away from its place, now; it ends when nobody uses it."""
    checked(_libc.umount2(os.fsencode(target), _MNT_DETACH), f"unmount {target}")


def seal(target: str, attributes: int, *, below: bool = True) -> None:
    """Add attributes to a mount, and to those below it."""
    values = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if below else 0
    system(_SYS_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), flags, values, ctypes.c_size_t(len(values)))


def pivot_root(new: str, old: str) -> None:
    """Make the mount at `new` the root, and put the present one at `old`."""
    checked(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), "pivot_root")


def die_with_parent(signal: int) -> None:
    """Have the kernel send this process a signal when its parent ends."""
    _prctl(_PR_SET_PDEATHSIG, signal, "parent's death signal")


def own_again() -> None:
    """After a change of user, let this process's files in /proc be its own."""
    _prctl(_PR_SET_DUMPABLE, 1, "dumpable")


def gain_nothing() -> None:
    """Never gain a right by executing something; the kernel demands it of who filters its own calls."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1, "no_new_privs")


def drop_capabilities() -> None:
    """Give up every capability for good."""
    header = struct.pack("=Ii", _CAPABILITIES_3, 0)
    checked(_libc.capset(header, bytes(24)), "capset")


def filter_calls(program: bytes) -> None:
    """Have every later system call of this process judged by a BPF program, of 8 bytes an instruction."""
    buffer = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    attribute = Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    checked(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.byref(attribute), 0, 0), "seccomp")


def _prctl(option: int, value: int, what: str) -> None:
    checked(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), what)
