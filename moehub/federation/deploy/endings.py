"""How processes end: with their parent, by a signal that is heard, by their pids; never by their names."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import psutil

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
_POLL = 0.05


@contextlib.contextmanager
def leaving_properly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave the `with` blocks inside one by one, as Ctrl-C does, with exit code 128 + signal.

    What is ignored already, as SIGHUP under nohup, stays ignored.
    """

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    heard = [each for each in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(each) != signal.SIG_IGN]
    with _handled(heard, leave):
        yield


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals wait: a Ctrl-C between starting or ending a process and noting it would leave it behind."""
    waiting: list[int] = []
    with _handled([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], lambda number, _: waiting.append(number)):
        yield
    if waiting:
        signal.raise_signal(signal.Signals(waiting[0]))


@contextlib.contextmanager
def _handled(signals: Sequence[signal.Signals], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle signals for a while; only the main thread may, and only it is interrupted by them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, handler) for each in signals}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was if was is not None else signal.SIG_DFL)


def die_with(parent: int) -> None:
    """Let this process be killed when its parent dies, on Linux; leave at once where it already has."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def dead(process: "subprocess.Popen[bytes]") -> bool:
    """Say whether a process is dead; until it is reaped its pid, and the group of that number, stay its own."""
    if process.returncode is not None:
        return True
    try:
        return bool(psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def reap(process: "subprocess.Popen[bytes]") -> int:
    """Kill what a dead leader left behind in its session's group, and return its exit code."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def end(leaders: "list[subprocess.Popen[bytes]]", grace: float) -> None:
    """End processes and their descendants: asked, killed after `grace` seconds, and reaped."""
    children = _ask(leaders)
    _wait(lambda: all(map(dead, leaders)) and all(map(_gone, children)), grace)
    for leader in leaders:
        if not dead(leader):
            children += _children(leader.pid)
            os.kill(leader.pid, signal.SIGKILL)
    for child in children:
        _send(child, signal.SIGKILL)
    for leader in leaders:
        while not dead(leader):
            time.sleep(_POLL)
        reap(leader)
    _wait(lambda: all(map(_gone, children)), grace)


def _ask(leaders: "list[subprocess.Popen[bytes]]") -> list[psutil.Process]:
    """Ask leaders and their descendants to end; return the descendants."""
    living = [leader for leader in leaders if not dead(leader)]
    children = [child for leader in living for child in _children(leader.pid)]
    for leader in living:
        os.kill(leader.pid, signal.SIGTERM)  # not Popen.send_signal, which would reap it and lose its group
    for child in children:
        _send(child, signal.SIGTERM)
    return children


def _wait(over: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not over():
        time.sleep(_POLL)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with contextlib.suppress(psutil.Error):  # psutil knows when the pid is another's by now
        process.send_signal(number)
