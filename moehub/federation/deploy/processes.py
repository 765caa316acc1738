"""Processes that belong to a command: started, watched, started again when they die, and ended with it.

Each is the leader of a session of its own, so a Ctrl-C reaches the command alone, which then ends the others by their
pids, children included. Where the command itself is killed, Linux kills the leaders (`PR_SET_PDEATHSIG`) and these
take their children along.
"""

import math
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from moehub.errors import FederationError
from moehub.federation.deploy import endings, pids

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
    """How often in a row it is started again."""
    essential: bool = True
    """Whether one more death is an error; else it stays dead."""


@dataclass(frozen=True)
class Fall:
    """A process died and will be started again."""

    name: str
    code: int
    """Exit code; minus the signal where one killed it."""
    wait: float
    """Seconds until it is started again; infinite where it stays dead."""

    def __str__(self) -> str:
        then = "it is not started again" if self.wait == math.inf else f"it is started again in {self.wait:g} s"
        return f"{self.name} ended with exit code {self.code}; {then}"


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
        with endings.undisturbed():
            running = _Running(service, self._spawn(service))
            self._running[service.name] = running
            pids.record(self.folder, service.name, running.process.pid)
        return running.process.pid

    def pid(self, name: str) -> int | None:
        """Return the pid of a process, None while it is down."""
        running = self._running[name]
        return None if running.due is not None or endings.dead(running.process) else running.process.pid

    def watch(self) -> list[Fall]:
        """Start again what is due, and return what has died since the last call.

        Raises:
            FederationError: an essential process died too often in a row; the last lines of its log are in it.
        """
        return [fall for running in list(self._running.values()) if (fall := self._look_after(running)) is not None]

    def wait_for(self, ready: Callable[[], bool], what: str, *, seconds: float) -> None:
        """Watch until `ready()` holds.

        Raises:
            FederationError: it does not within `seconds`, or an essential process keeps dying.
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
        with endings.undisturbed():
            endings.end([running.process for running in chosen], self.grace)
            for running in chosen:
                pids.forget(self.folder, running.service.name)
                del self._running[running.service.name]

    def _spawn(self, service: Service) -> "subprocess.Popen[bytes]":
        parent = os.getpid()
        try:
            with self.log(service.name).open("ab") as log:
                return subprocess.Popen(  # noqa: S603 (our own command line)
                    service.command,
                    env=dict(service.environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=lambda: endings.die_with(parent),  # noqa: PLW1509 (one system call, no lock is taken)
                )
        except OSError as error:
            raise FederationError(
                f"{service.name} cannot be started with {service.command[0]} ({error.strerror}): install moehub again"
            ) from error

    def _look_after(self, running: _Running) -> Fall | None:
        if running.due is not None:
            if time.monotonic() >= running.due:
                with endings.undisturbed():
                    running.process, running.due = self._spawn(running.service), None
                    pids.record(self.folder, running.service.name, running.process.pid)
                running.started = time.monotonic()
            return None
        if not endings.dead(running.process):
            return None
        code = endings.reap(running.process)
        running.falls = 1 if time.monotonic() - running.started > _LONG else running.falls + 1
        last = running.falls > running.service.restarts
        if last and running.service.essential:
            raise FederationError(self._epitaph(running, code))
        wait = math.inf if last else _DELAYS[min(running.falls, len(_DELAYS)) - 1]
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
