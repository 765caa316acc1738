"""Processes that belong to a command: started, watched, started again when they die, and ended with it.

Each is the leader of a session of its own, so a Ctrl-C reaches the command alone, which then ends the others by their
pids, children included. Where the command itself is killed, Linux kills the leaders (`PR_SET_PDEATHSIG`) and these
take their children along.
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Self

import psutil

from moehub import files
from moehub.errors import FederationError

_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1
_DELAYS = (0.5, 2.0, 5.0, 15.0, 30.0)
"""Seconds before the first, second, … start after a death."""
_LONG = 60.0
"""A process that lived for so many seconds died for a new reason: its deaths are counted from one again."""
_POLL = 0.05


@dataclass(frozen=True)
class Service:
    """A process to be kept running."""

    name: str
    """Unique within its `Processes`; its log and its pid file are named after it."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """All of it: nothing is inherited beside."""
    restarts: int = 5
    """How often in a row it is started again; one more death is an error."""


@dataclass(frozen=True)
class Fall:
    """A process died and will be started again."""

    name: str
    code: int
    """Exit code; minus the signal where one killed it."""
    wait: float
    """Seconds until it is started again."""


@dataclass
class _Running:
    service: Service
    process: subprocess.Popen[bytes]
    started: float = field(default_factory=time.monotonic)
    falls: int = 0
    """Deaths in a row."""
    due: float | None = None
    """When it is started again, where it is dead."""


class Processes:
    """The processes of one command; all of them have ended when the `with` block is left, however it is left.

    Start and watch them from a thread that lives as long as they do: the kernel's word that "the parent died" means
    the thread that started them.
    """

    def __init__(self, folder: Path, *, grace: float = 5.0) -> None:
        self.folder = folder
        """Holds `logs/NAME.log` and `pids/NAME.json`."""
        self.grace = grace
        """Seconds between asking a process to end and killing it."""
        self._running: dict[str, _Running] = {}

    def __enter__(self) -> Self:
        (self.folder / "logs").mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def log(self, name: str) -> Path:
        """Return where a process writes."""
        return self.folder / "logs" / f"{name}.log"

    def start(self, service: Service) -> int:
        """Start a process and return its pid.

        Raises:
            FederationError: its program cannot be started.
        """
        with _undisturbed():
            process = self._spawn(service)
            self._running[service.name] = _Running(service, process)
        return process.pid

    def pid(self, name: str) -> int | None:
        """Return the pid of a process, None while it is down."""
        running = self._running[name]
        return None if running.due is not None or _dead(running.process) else running.process.pid

    def watch(self) -> list[Fall]:
        """Start again what is due, and return what has died since the last call.

        Raises:
            FederationError: a process died more often in a row than it may; the last lines of its log are in it.
        """
        return [fall for running in list(self._running.values()) if (fall := self._look_after(running)) is not None]

    def wait_for(self, ready: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Watch until `ready()` holds.

        Raises:
            FederationError: it does not within `seconds`, or a process keeps dying.
        """
        until = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > until:
                raise FederationError(
                    f"{what} did not happen within {seconds:.0f} seconds: see the logs in {self.folder / 'logs'}"
                )
            self.watch()
            time.sleep(_POLL)

    def end(self, *names: str) -> None:
        """End these processes, or all of them, the last started first: asked, then killed, their children too."""
        chosen = [self._running[name] for name in (names or tuple(self._running))][::-1]
        with _undisturbed():
            _end([running.process for running in chosen], self.grace)
            for running in chosen:
                forget(self.folder, running.service.name)
                del self._running[running.service.name]

    def _spawn(self, service: Service) -> "subprocess.Popen[bytes]":
        parent = os.getpid()
        try:
            with self.log(service.name).open("ab") as log:
                process = subprocess.Popen(  # noqa: S603 (our own command line)
                    service.command,
                    env=dict(service.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: die_with(parent),  # noqa: PLW1509 (one system call, no lock is taken)
                )
        except OSError as error:
            raise FederationError(
                f"{service.name} cannot be started with {service.command[0]} ({error.strerror}): install moehub again"
            ) from error
        record(self.folder, service.name, process.pid)
        return process

    def _look_after(self, running: _Running) -> Fall | None:
        if running.due is not None:
            if time.monotonic() >= running.due:
                with _undisturbed():
                    running.process, running.due = self._spawn(running.service), None
                running.started = time.monotonic()
            return None
        if not _dead(running.process):
            return None
        code = _reap(running.process)
        running.falls = 1 if time.monotonic() - running.started > _LONG else running.falls + 1
        if running.falls > running.service.restarts:
            raise FederationError(self._epitaph(running, code))
        wait = _DELAYS[min(running.falls, len(_DELAYS)) - 1]
        running.due = time.monotonic() + wait
        return Fall(running.service.name, code, wait)

    def _epitaph(self, running: _Running, code: int) -> str:
        name, log = running.service.name, self.log(running.service.name)
        times = f"{running.falls} times in a row, last " if running.falls > 1 else ""
        return f"{name} ended {times}with exit code {code}: see {log}, which ends with\n{tail(log)}"


def tail(log: Path, lines: int = 12) -> str:
    """Return the last lines of a log that are not empty, indented; nothing where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(f"  {line}" for line in [each for each in text.splitlines() if each.strip()][-lines:])


def record(folder: Path, name: str, pid: int) -> None:
    """Write down that `name` is this process, so that another command can find it."""
    created = psutil.Process(pid).create_time()
    files.write_text(folder / "pids" / f"{name}.json", json.dumps({"pid": pid, "created": created}))


def forget(folder: Path, name: str) -> None:
    """Undo `record`."""
    (folder / "pids" / f"{name}.json").unlink(missing_ok=True)


def recorded(folder: Path) -> dict[str, psutil.Process]:
    """Return name → process of those that were recorded and still run; a pid that is another's by now is none."""
    found = {}
    for path in sorted((folder / "pids").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError, psutil.Error):
            entry = json.loads(path.read_text(encoding="utf-8"))
            process = psutil.Process(int(entry["pid"]))
            if abs(process.create_time() - entry["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                found[path.stem] = process
    return found


@contextlib.contextmanager
def leaving_properly() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave the `with` blocks inside one by one, as Ctrl-C does, with exit code 128 + signal."""

    def leave(number: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, leave) for each in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Hold signals back: a Ctrl-C between starting or ending a process and noting it would leave it behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def die_with(parent: int) -> None:
    """Let this process be killed when its parent dies, on Linux; leave at once where it already has."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _dead(process: "subprocess.Popen[bytes]") -> bool:
    """Say whether a process is dead; until it is reaped its pid, and the group of that number, stay its own."""
    if process.returncode is not None:
        return True
    try:
        return bool(psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _reap(process: "subprocess.Popen[bytes]") -> int:
    """Kill what a dead leader left behind in its session's group, and return its exit code."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()


def _end(leaders: "list[subprocess.Popen[bytes]]", grace: float) -> None:
    living = [leader for leader in leaders if not _dead(leader)]
    children = [child for leader in living for child in _children(leader.pid)]
    for process in (*living, *children):
        _send(process, signal.SIGTERM)
    until = time.monotonic() + grace
    while time.monotonic() < until and not (all(map(_dead, living)) and all(map(_gone, children))):
        time.sleep(_POLL)
    for leader in leaders:
        if not _dead(leader):
            children += _children(leader.pid)
            _send(leader, signal.SIGKILL)
    for child in children:
        _send(child, signal.SIGKILL)
    for leader in leaders:
        while not _dead(leader):
            time.sleep(_POLL)
        _reap(leader)


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


def _send(process: Any, number: signal.Signals) -> None:
    """Send a signal; Popen and psutil both know when the pid is no longer the process's own."""
    with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
        process.send_signal(number)
