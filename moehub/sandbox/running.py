"""Running strangers' code: keepers are started when they are needed, kept warm, and replaced when they end."""

import atexit
import contextlib
import functools
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from moehub.errors import SandboxError
from moehub.sandbox import examiner
from moehub.sandbox.trial import Limits, Outcome, Status, Tests

_HERE = Path(__file__).parent
_START = (
    "import sys, types\n"
    "for name, folder in (('moehub', {parent!r}), ('moehub.sandbox', {here!r})):\n"
    "    sys.modules[name] = types.ModuleType(name)\n"
    "    sys.modules[name].__path__ = [folder]\n"
    "from moehub.sandbox import keeper\n"
    "keeper.main({without!r})\n"
)
"""The package itself is not imported: it brings libraries, and lies in a folder that the keeper leaves out (-S)."""
_LONGEST_CODE = 1 << 20
_TO_START = 20.0
_GRACE = 5.0
"""Seconds beyond a trial's own after which a keeper that does not answer is ended."""
_MOST_IDLE = 16


@dataclass(frozen=True)
class Protection:
    """One of the walls around strangers' code."""

    name: str
    """`namespaces`, `landlock`, `seccomp` or `user`."""
    found: str
    """What it is like, or why there is none."""
    there: bool


def run(code: str, tests: Tests = (), *, limits: Limits | None = None) -> Outcome:
    """Run Python code that nobody trusts, and tests against it, and return what came of it.

    On a machine where network, files or processes cannot be kept, nothing is run and the outcome is `refused`.
    """
    limits = limits or Limits()
    failed = Outcome("failed", "", "", 0.0, 0, examiner.count(tests) if tests else 0)
    if len(code.encode(errors="replace")) > _LONGEST_CODE:
        return replace(failed, stderr=f"the code is longer than {_LONGEST_CODE >> 10} KiB")
    try:
        with _KEEPERS.one() as keeper:
            return keeper.run(code, tests, limits)
    except EndedError as error:
        return replace(failed, stderr=str(error))
    except SandboxError as error:
        return replace(failed, status="refused", stderr=str(error))


def run_many(
    codes: Sequence[str],
    tests: Sequence[Tests] | None = None,
    *,
    limits: Limits | None = None,
    workers: int | None = None,
) -> list[Outcome]:
    """Run many pieces of code, each against its tests, `workers` at a time (one for each processor), in order."""
    against: Sequence[Tests] = tests if tests is not None else [()] * len(codes)
    if len(codes) != len(against):
        raise ValueError(f"{len(codes)} pieces of code and {len(against)} of tests")
    with ThreadPoolExecutor(workers or _processors()) as pool:
        return list(pool.map(functools.partial(run, limits=limits), codes, against))


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def protections() -> tuple[Protection, ...]:
    """Return the walls of this machine, those that are missing included.

    Raises:
        SandboxError: strangers' code cannot be run here; the sentence says what is missing.
    """
    with _KEEPERS.one() as keeper:
        return keeper.protections


def close() -> None:
    """End every keeper that is idle."""
    _KEEPERS.close()


class EndedError(SandboxError):
    """A keeper ended, or does not answer; another one may."""


class Keeper:
    """A process that runs one trial after another (`moehub.sandbox.keeper`)."""

    def __init__(self, without: str = "", command: Sequence[str] = (sys.executable,)) -> None:
        """Start it; `without` leaves walls out, and `command` is a Python, to test what holds then.

        Raises:
            SandboxError: it refuses to run anything on this machine.
        """
        if sys.platform != "linux":
            raise SandboxError(
                f"strangers' code is run on Linux alone, and this is {sys.platform}: use a Linux machine"
            )
        start = _START.format(parent=str(_HERE.parent), here=str(_HERE), without=without)
        self.process = subprocess.Popen(  # noqa: S603 (our own command)
            [*command, "-I", "-S", "-B", "-X", "utf8", "-c", start],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            bufsize=0, start_new_session=True, env={}, cwd="/",
        )  # fmt: skip
        try:
            hello = self._answer(_TO_START)
        except EndedError as error:
            self.end()
            raise SandboxError(f"strangers' code is not run on this machine: {error} when it is started") from error
        if "missing" in hello:
            self.end()
            raise SandboxError(f"strangers' code is not run on this machine, which lacks {hello['missing']}")
        self.protections = tuple(
            Protection(name, found.removeprefix("no: "), not found.startswith("no: "))
            for name, found in hello["walls"].items()
        )
        self.scratch = bool(hello["scratch"])

    def run(self, code: str, tests: Tests, limits: Limits) -> Outcome:
        """Return what came of a trial.

        Raises:
            EndedError: the keeper is of no use any more.
        """
        listed = tests if isinstance(tests, str) else list(tests)
        return _outcome(self._ask(code, listed, limits), examiner.count(listed) if listed else 0)

    def _ask(self, code: str, tests: str | list[str], limits: Limits) -> dict[str, Any]:
        parts = json.dumps(tests).encode(), code.encode(errors="replace")
        header = json.dumps({
            "limits": {
                "seconds": int(limits.seconds) + 1, "wall": limits.seconds, "memory": limits.memory,
                "disk": limits.disk, "output": limits.output, "threads": limits.threads, "tested": bool(tests),
            },
            "tests": len(parts[0]), "code": len(parts[1]),
        }).encode()  # fmt: skip
        try:
            _file(self.process.stdin).write(b"".join((struct.pack("!I", len(header)), header, *parts)))
        except OSError as error:
            raise EndedError("the process that keeps strangers' code ended") from error
        return self._answer(limits.seconds + _GRACE)

    def _answer(self, seconds: float) -> dict[str, Any]:
        ends = time.monotonic() + seconds
        (length,) = struct.unpack("!I", self._bytes(4, ends))
        message: dict[str, Any] = json.loads(self._bytes(length, ends))
        return message

    def _bytes(self, length: int, ends: float) -> bytes:
        stream, found = _file(self.process.stdout), bytearray()
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        while len(found) < length:
            ready = poll.poll(max(0.0, ends - time.monotonic()) * 1000)
            part = os.read(stream.fileno(), length - len(found)) if ready else b""
            if not part:
                raise EndedError("the process that keeps strangers' code " + ("ended" if ready else "does not answer"))
            found += part
        return bytes(found)

    def end(self) -> None:
        """End it, and with it whatever it runs."""
        self.let_go()
        self.process.kill()
        self.process.wait()

    def let_go(self) -> None:
        """Close this process's ends of its pipes; the keeper ends when all are closed."""
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                _file(pipe).close()


class _Keepers:
    """Keepers that wait for work; those that a fork brought along belong to the other process."""

    def __init__(self) -> None:
        self.idle: list[Keeper] = []
        self.lock, self.process = threading.Lock(), os.getpid()

    @contextlib.contextmanager
    def one(self) -> Iterator[Keeper]:
        keeper = self._waiting() or Keeper()
        try:
            yield keeper
        except BaseException:
            keeper.end()
            raise
        with self.lock:
            kept = len(self.idle) < _MOST_IDLE
            if kept:
                self.idle.append(keeper)
        if not kept:
            keeper.end()

    def _waiting(self) -> Keeper | None:
        """Return a keeper that is idle, if one lives."""
        with self.lock:
            if self.process != os.getpid():
                for keeper in self.idle:
                    keeper.let_go()
                self.idle, self.process = [], os.getpid()
            while self.idle:
                keeper = self.idle.pop()
                if keeper.process.poll() is None:
                    return keeper
                keeper.end()
        return None

    def close(self) -> None:
        with self.lock:
            idle, self.idle = self.idle, []
        if self.process == os.getpid():
            for keeper in idle:
                keeper.end()


_KEEPERS = _Keepers()
atexit.register(_KEEPERS.close)


def _file(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise SandboxError("the process that keeps strangers' code has no pipes")
    return pipe


def _outcome(answer: Mapping[str, Any], count: int) -> Outcome:
    said = list(_messages(answer["said"]))
    passed = min(count, sum(message.get("test") is True for message in said))
    ended = any("end" in message for message in said)
    failed = any(message.get("test") is False for message in said)
    whole = ended and any("ran" in message for message in said) and not failed and passed == count
    status: Status = "passed" if whole else "failed"
    if answer["ended"] in {"timeout", "output"}:
        status = "timeout" if answer["ended"] == "timeout" else "output"
    elif not whole and any(message.get("memory") is True for message in said):
        status = "memory"
    whys = [str(message["why"]) for message in said if "why" in message]
    stderr = "\n".join(filter(None, [str(answer["stderr"]).rstrip("\n"), *whys]))
    return Outcome(status, str(answer["stdout"]), stderr, float(answer["seconds"]), passed, count)


def _messages(lines: Sequence[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        with contextlib.suppress(ValueError):
            message = json.loads(line)
            if isinstance(message, dict):
                yield message
