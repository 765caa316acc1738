"""Who serves a desk: whoever holds its lock, a resident worker or an asker that does its task itself.

The system frees the lock when its holder dies, however it dies; `worker.json` says who the last holder was.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from moehub import files
from moehub.errors import FederationError

_GRACE = 30.0
"""Seconds that a worker which died may take to come back."""
_LOCK, _HOLDER = "worker.lock", "worker.json"


@dataclass(frozen=True)
class Holder:
    """The process that serves a desk, or did."""

    pid: int
    resident: bool
    """Whether it stays for the tasks to come."""
    log: str = ""
    """The file that it writes its lines to, where it is one."""
    device: str = ""
    """What it trains on; empty while it is starting."""


class Service:
    """The right to work off a desk's tasks; one process at a time has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def taken(self, *, resident: bool) -> Iterator[bool]:
        """Yield whether this process serves the desk now; False where another one does."""
        lock = FileLock(self.folder / _LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            self.declare(Holder(os.getpid(), resident, _log() if resident else ""))
            yield True
        finally:
            (self.folder / _HOLDER).unlink(missing_ok=True)
            lock.release()

    def declare(self, holder: Holder) -> None:
        """Write down who serves the desk."""
        files.write_text(self.folder / _HOLDER, files.to_json(dataclasses.asdict(holder)))

    def last(self) -> Holder | None:
        """Return who serves the desk, or served it when it was killed; None where it left in peace."""
        try:
            return Holder(**json.loads((self.folder / _HOLDER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def busy(self) -> bool:
        """Return whether a process serves the desk."""
        try:
            with FileLock(self.folder / _LOCK, timeout=0):
                return False
        except Timeout:
            return True


def _log() -> str:
    """Return the file that standard error goes to, or nothing where it is none."""
    with contextlib.suppress(OSError):
        path = Path("/proc/self/fd/2").readlink()
        return str(path) if path.is_file() else ""
    return ""


class Patience:
    """What an asker knows about who works: a worker that was seen to serve gets time to come back."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.worker: Holder | None = None
        self.lost: float | None = None

    def nobody_works(self) -> bool:
        """Return whether the asker is to do the task itself.

        Raises:
            FederationError: the worker that served died, and none came in its place.
        """
        if self.service.busy():
            holder = self.service.last()
            if holder is not None and holder.resident and psutil.pid_exists(holder.pid):
                self.worker = holder
            self.lost = None
            return False
        if self.worker is None:
            return True
        self.lost = self.lost or time.monotonic()
        if time.monotonic() - self.lost > _GRACE:
            raise FederationError(
                f"the worker (process {self.worker.pid}) ended before the task was done, and none came in its place "
                f"for {_GRACE:.0f} s{_last_line(self.worker.log)}: start it again; it goes on where it was"
            )
        return False


def _last_line(log: str) -> str:
    """Return what a log says last, for the middle of a sentence."""
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").split("\n") if log else []
    except OSError:
        return ""
    return next((f" ({line.strip():.200})" for line in reversed(lines) if line.strip()), "")
