"""A process that is killed at a chosen one of its steps on disk.

The steps are system calls, seen through ptrace: nothing that reaches the disk goes unnoticed, SQLite's own writes
included. A process is killed just before its n-th step; as nothing changes on disk between two steps, that is also just
after the one before. All of its threads are followed.

Linux on x86-64 only, and where a process may trace its own children.
"""

import ctypes
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

NEVER = 0
ON_FIRST_PATH = {76: "truncate", 82: "rename", 83: "mkdir", 84: "rmdir", 86: "link", 87: "unlink", 90: "chmod"}
ON_SECOND_PATH = {258: "mkdir", 263: "unlink", 264: "rename", 265: "link", 268: "chmod", 316: "rename"}
ON_FILE = {1: "write", 18: "write", 20: "write", 40: "write", 326: "write", 74: "fsync", 75: "fsync", 77: "truncate"}
ON_SOCKET = {44: "send", 46: "send"}
OPEN = 257
CREATES = os.O_CREAT | os.O_TRUNC
_TRACEME, _PEEKUSER, _SYSCALL, _SETOPTIONS = 0, 3, 24, 0x4200
_OPTIONS = 1 | 1 << 3 | 1 << 20  # mark system calls, follow threads, die with the tracer
_CALL, _FIRST, _SECOND, _THIRD = 8 * 15, 8 * 14, 8 * 13, 8 * 12
"""Where a stopped thread's registers are: orig_rax, rdi, rsi, rdx."""
_WALL = 0x40000000
_SYSTEM_CALL = signal.SIGTRAP | 0x80
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long] * 4
_libc.ptrace.restype = ctypes.c_long


@dataclass(frozen=True)
class Ended:
    """How a traced process ended."""

    steps: tuple[str, ...]
    """What it did on disk."""
    code: int
    """Its exit status; negative for a signal."""


def possible() -> bool:
    """Return whether processes can be traced here: some containers forbid it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    child = os.fork()
    if not child:
        os._exit(_libc.ptrace(_TRACEME, 0, 0, 0) != 0)
    return os.waitpid(child, 0)[1] == 0


def run(action: Callable[[], object], watched: Sequence[Path], *, die_at: int = NEVER, sends: bool = False) -> Ended:
    """Run `action` in a child that is killed just before its `die_at`-th step.

    Args:
        action: what it does.
        watched: folders below which something is a step.
        die_at: which step; 0 for none.
        sends: whether sending something is a step, too.
    """
    child = os.fork()
    if not child:
        _be_traced(action)
    os.waitpid(child, 0)  # it has stopped itself
    _libc.ptrace(_SETOPTIONS, child, 0, _OPTIONS)
    return _Tracer(child, tuple(map(str, watched)), die_at, sends).follow()


def _be_traced(action: Callable[[], object]) -> None:
    code = 1
    try:
        os.setpgid(0, 0)  # the tracer waits for this group alone
        _libc.ptrace(_TRACEME, 0, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        action()
        code = 0
    except BaseException:  # noqa: BLE001 (a child must not go on as its parent)
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


class _Tracer:
    def __init__(self, child: int, watched: tuple[str, ...], die_at: int, sends: bool) -> None:
        self.child, self.watched, self.die_at, self.sends = child, watched, die_at, sends
        self.steps: list[str] = []
        self.inside: set[int] = set()  # threads within a system call

    def follow(self) -> Ended:
        thread, deliver = self.child, 0
        while True:
            _libc.ptrace(_SYSCALL, thread, 0, deliver)
            thread, status = os.waitpid(-self.child, _WALL)
            deliver = 0
            if not os.WIFSTOPPED(status):
                if thread == self.child:
                    return Ended(tuple(self.steps), os.waitstatus_to_exitcode(status))
                continue
            stopped_by = os.WSTOPSIG(status)
            if stopped_by == _SYSTEM_CALL:
                self._called(thread)
            elif stopped_by not in (signal.SIGTRAP, signal.SIGSTOP):  # those two are ptrace's own
                deliver = stopped_by

    def _called(self, thread: int) -> None:
        if thread in self.inside:
            self.inside.discard(thread)
            return
        self.inside.add(thread)
        step = self._step(thread)
        if step is not None:
            self.steps.append(step)
            if len(self.steps) == self.die_at:
                os.kill(self.child, signal.SIGKILL)

    def _step(self, thread: int) -> str | None:
        """Return what a thread is about to do to a watched folder, or None."""
        call = self._register(thread, _CALL)
        if call in ON_SOCKET:
            return ON_SOCKET[call] if self.sends else None
        if call in ON_FILE:
            what, place = ON_FILE[call], self._file(thread)
        elif call in ON_FIRST_PATH:
            what, place = ON_FIRST_PATH[call], self._text(thread, self._register(thread, _FIRST))
        elif call in ON_SECOND_PATH or (call == OPEN and self._register(thread, _THIRD) & CREATES):
            what, place = ON_SECOND_PATH.get(call, "create"), self._text(thread, self._register(thread, _SECOND))
        else:
            return None
        return f"{what} {place}" if place.startswith(self.watched) or not place.startswith("/") else None

    def _file(self, thread: int) -> str:
        try:
            place = str(Path(f"/proc/{thread}/fd/{self._register(thread, _FIRST)}").readlink())
        except OSError:
            place = ""
        return place if place.startswith("/") else "/dev/null"  # a pipe or a socket

    @staticmethod
    def _register(thread: int, offset: int) -> int:
        value: int = _libc.ptrace(_PEEKUSER, thread, offset, 0)
        return value

    @staticmethod
    def _text(thread: int, address: int) -> str:
        with Path(f"/proc/{thread}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return os.fsdecode(memory.read(4096).partition(b"\0")[0])
