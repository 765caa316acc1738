"""The server's side of the process in which the gate runs: started on first need, and again when it has died."""

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import moehub
from moehub.hub.refusals import TOKEN_VARIABLE
from moehub.hubserver.refusals import RefusedError

_CHECKOUT = str(Path(moehub.__file__).parents[1])
# -P: nothing is imported from the folder that the server happens to be started in.
_COMMAND = (
    *(sys.executable, "-P", "-c"),
    f"import sys; sys.path.append({_CHECKOUT!r}); from moehub.hubserver.gate_process import main; main()",
)
_LONGEST_ANSWER = 4 << 20
_NOT_ITS_OWN = frozenset({"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", TOKEN_VARIABLE})
"""Variables that the process has no use for."""
_TO_END = 2.0
"""Seconds that the process has to end when it was asked to."""


@dataclass(frozen=True)
class Limits:
    """What one question to the gate's process may cost."""

    seconds: float = 120.0
    """Wall time; waiting for the questions before it has as much again."""
    memory: int = 4 << 30
    """Bytes of memory of its own (`RLIMIT_DATA`), what torch itself needs (0.2 GB) included."""


class FailedError(Exception):
    """The process could not answer because of what it was given; its text says why."""


class Examiner:
    """The process in which the gate runs; one question at a time."""

    def __init__(self, limits: Limits | None = None, *, command: Sequence[str] = _COMMAND) -> None:
        """Keep the limits; `command` runs `moehub.hubserver.gate_process`."""
        self.limits, self.command = limits or Limits(), command
        self.process: subprocess.Popen[bytes] | None = None
        """None before the first question."""
        self._turn = threading.Lock()
        self._closed = False

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to a question (see `moehub.hubserver.gate_process`).

        Raises:
            FailedError: it took more time or memory than it may, or what it reads breaks the process that reads it.
            RefusedError: 503 if others are asking.
        """
        if not self._turn.acquire(timeout=self.limits.seconds):
            raise RefusedError(503, "the admission gate is busy with other experts: push again in a minute")
        try:
            limits = {"seconds": self.limits.seconds, "memory": self.limits.memory}
            answer = self._exchange(json.dumps({**question, **limits}).encode() + b"\n")
        finally:
            self._turn.release()
        if answer.get("failed") == "memory":
            raise FailedError(f"it took more memory than the {self.limits.memory >> 20} MiB it may")
        if "failed" in answer:
            raise FailedError(str(answer["failed"]))
        return answer

    def _exchange(self, line: bytes) -> dict[str, Any]:
        """Send a line and return the one that comes back; a process that does not answer properly is ended."""
        try:
            given, taken = self._pipes()
            given.write(line)
            answer = json.loads(self._line(taken))
        except (OSError, ValueError) as error:
            self._end()
            raise FailedError("it broke the process that read it") from error
        except FailedError:
            self._end()
            raise
        if not isinstance(answer, dict):
            raise FailedError("the process that read it gave no answer")
        return answer

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        """Return where the process reads and writes; one is started where there is none that lives."""
        if self.process is None or self.process.poll() is not None:
            self._end()
            self.process = self._start()
        given, taken = self.process.stdin, self.process.stdout
        if given is None or taken is None:
            raise FailedError("the gate's process has no pipes")
        return given, taken

    def _start(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise FailedError("the hub is being stopped")
        environment = {name: value for name, value in os.environ.items() if name not in _NOT_ITS_OWN}
        # A session of its own: Ctrl-C on the server's terminal is the server's affair.
        return subprocess.Popen(  # noqa: S603 (our own command)
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            env=environment,
        )

    def _line(self, stream: IO[bytes]) -> bytes:
        """Return the next line of a pipe.

        Raises:
            FailedError: it does not come in time, is too long, or the pipe closes.
        """
        ends, found = time.monotonic() + self.limits.seconds, bytearray()
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        while not found.endswith(b"\n"):
            left = ends - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise FailedError(f"it took longer than the {self.limits.seconds:g} seconds it may")
            chunk = os.read(stream.fileno(), 1 << 16)
            if not chunk:
                raise FailedError("it broke the process that read it")
            found += chunk
            if len(found) > _LONGEST_ANSWER:
                raise FailedError("the answer about it is too long")
        return bytes(found)

    def close(self) -> None:
        """End the process for good; whoever waits for an answer gets none."""
        self._closed = True
        if self.process is not None:
            _end(self.process)
        with self._turn:
            self._end()

    def _end(self) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        _end(process)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process: asked first, killed after two seconds, and reaped."""
    process.terminate()
    try:
        process.wait(_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
