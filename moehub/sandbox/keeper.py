"""The process that keeps strangers' code: it builds the walls once, then makes three processes for each trial.

It is started with nothing of the environment, and imports the standard library alone. A trial comes on standard input
as four bytes of length, a header in JSON (`limits`, lengths of `tests` and `code` in bytes), the tests and the code.
The answer goes to standard output: four bytes of length, and JSON.

    keeper ──▶ warden, which watches and answers ──▶ examiner, the tests      (one of each for a trial)
                                                 ──▶ candidate, the code

The tests are read by the examiner itself, and what it says by the warden after the candidate was made. So no process
that the code runs in ever held them, or anything of an earlier trial.
"""

import contextlib
import gc
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from moehub.sandbox import candidate, examiner, kernel, walls
from moehub.sandbox.exchange import Line
from moehub.sandbox.walls import MissingError, Walls

_CHUNK = 1 << 16
_MOST_SAID = 4 << 20
_END = b'{"end": true}\n'
"""The last that the tests' process says."""


def main(without: str = "") -> None:
    """Build the walls without those that are named (separated by commas), and run trials until the input closes."""
    try:
        built = walls.enter(frozenset(filter(None, without.split(","))))
    except MissingError as error:
        _write({"missing": str(error)})
        return
    child = os.fork()
    if child:
        os.close(0)
        os.close(1)
        os.waitpid(child, 0)
        return
    kernel.die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if (lack := _missing(built)) is not None:
        _write({"missing": lack})
        os._exit(0)
    _write({"walls": dict(built.found), "scratch": built.scratch})
    gc.freeze()
    while True:
        header = json.loads(_read(struct.unpack("!I", _read(4))[0]))
        child = os.fork()
        if not child:
            _warden(built, header)
        if os.waitpid(child, 0)[1]:
            os._exit(1)


def _warden(built: Walls, header: Mapping[str, Any]) -> NoReturn:
    """Run one trial and end: what was read, printed and said in it is in no process that a later one is made from."""
    code = 1
    try:
        kernel.die_with_parent(signal.SIGKILL)
        _write(Trial(built, header).run())
        code = 0
    finally:
        os._exit(code)


def _missing(built: Walls) -> str | None:
    """Try in a confined process what must not work; return what is missing where something does."""
    taken, given = os.pipe()
    with walls.mounted(1 << 20) if built.scratch else contextlib.nullcontext():
        child = os.fork()
        if not child:
            try:
                os.write(given, json.dumps(_tried(built)).encode())
            finally:
                os._exit(0)
        os.close(given)
        os.waitpid(child, 0)
    with os.fdopen(taken, "rb") as stream:
        text = stream.read()
    return json.loads(text) if text else "walls that hold: the process that tried them ended"


def _tried(built: Walls) -> str | None:
    if not os.access(os.path.dirname(os.__file__), os.R_OK):  # noqa: PTH120 (pathlib is not needed otherwise)
        return f"a standard library that user {os.getuid()} can read: {os.__file__} is closed to it"
    try:
        walls.confine(built, {"seconds": 5, "memory": 1 << 29, "disk": 1 << 20, "threads": 4})
    except Exception as error:  # noqa: BLE001 (whatever it is, it is told)
        return f"what the walls are built of ({error})"
    found = walls.holes()
    return f"walls that hold: code could {', '.join(found)}" if found else None


class Trial:
    """One piece of code and its tests."""

    def __init__(self, built: Walls, header: Mapping[str, Any]) -> None:
        self.walls, self.limits = built, header["limits"]
        self.lengths = {name: int(header[name]) for name in ("tests", "code")}
        self.outputs = {"stdout": bytearray(), "stderr": bytearray()}
        self.said = bytearray()
        """What the tests' process said: lines of JSON."""
        self.children: list[int] = []

    def run(self) -> dict[str, Any]:
        """Return what came of it."""
        with walls.mounted(self.limits["disk"]) if self.walls.scratch else contextlib.nullcontext():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            verdict, say = os.pipe()
            self._start(lambda: self._examine(ours, say), keep=[ours.fileno(), say, 0])
            os.close(say)
            ours.close()
            self._hear(verdict)
            code = _read(self.lengths["code"]).decode(errors="replace")
            pipes = {name: os.pipe() for name in self.outputs}
            writes = [write for _, write in pipes.values()]
            self._start(lambda: self._try(code, theirs, writes), keep=[theirs.fileno(), *writes])
            theirs.close()
            for write in writes:
                os.close(write)
            started = time.monotonic()
            reads = {read: name for name, (read, _) in pipes.items()}
            ended = self._watch(verdict, reads, started + self.limits["wall"])
            self._stop()
            self._drain(reads)
            for descriptor in (verdict, *reads):
                os.close(descriptor)
        return {
            "ended": ended,
            "seconds": time.monotonic() - started,
            "said": self.said.decode(errors="replace").splitlines(),
            **{name: text[: self.limits["output"]].decode(errors="replace") for name, text in self.outputs.items()},
        }

    def _start(self, do: Callable[[], NoReturn], *, keep: list[int]) -> None:
        child = os.fork()
        if child:
            self.children.append(child)
            return
        try:
            os.setsid()
            _close_all_but(keep)
            do()
        finally:
            os._exit(1)

    def _examine(self, line: socket.socket, say: int) -> NoReturn:
        tests = json.loads(_read(self.lengths["tests"]))
        os.write(say, b"{}\n")
        null = os.open("/dev/null", os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        walls.confine(self.walls, self.limits)
        examiner.examine(
            tests,
            Line(line.detach(), examiner.may),
            lambda message: _write_all(say, json.dumps(message).encode() + b"\n"),
        )

    def _try(self, code: str, line: socket.socket, writes: list[int]) -> NoReturn:
        for descriptor, source in enumerate((os.open("/dev/null", os.O_RDONLY), *writes)):
            os.dup2(source, descriptor)
        for source in writes:
            os.close(source)
        sys.stdin, sys.stdout, sys.stderr = (
            open(number, mode, buffering=1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115, PTH123 (descriptors)
            for number, mode in enumerate("rww")
        )
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        walls.confine(self.walls, self.limits)
        candidate.run(code, Line(line.detach(), lambda *_: True), tested=bool(self.limits["tested"]))

    def _hear(self, verdict: int) -> None:
        """Wait until the tests' process has read the tests, and nobody reads from standard input but this one."""
        if os.read(verdict, 3) != b"{}\n":
            os._exit(1)

    def _watch(self, verdict: int, reads: Mapping[int, str], deadline: float) -> str:
        """Take in what is said and printed; return why no more is: end, timeout or output."""
        poll = select.poll()
        for descriptor in (verdict, *reads):
            poll.register(descriptor, select.POLLIN)
        poll.register(0, 0)  # tells when the other end closes
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                return "timeout"
            for descriptor, event in poll.poll(left * 1000):
                if descriptor == 0:
                    self._stop()
                    os._exit(0)
                chunk = os.read(descriptor, _CHUNK) if event & select.POLLIN else b""
                if not chunk:
                    poll.unregister(descriptor)
                if descriptor == verdict:
                    self.said += chunk
                    if not chunk or self.said.endswith(_END) or len(self.said) > _MOST_SAID:
                        return "end"
                elif self._printed(reads[descriptor], chunk):
                    return "output"

    def _printed(self, name: str, chunk: bytes) -> bool:
        """Keep what was printed; return whether it is too much."""
        self.outputs[name] += chunk
        return sum(map(len, self.outputs.values())) > self.limits["output"]

    def _drain(self, reads: Mapping[int, str]) -> None:
        """Take in what was printed before the process ended."""
        for descriptor, name in reads.items():
            while chunk := os.read(descriptor, _CHUNK):
                self._printed(name, chunk)

    def _stop(self) -> None:
        """End both processes: neither can have started another."""
        for child in self.children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.children.clear()


def _close_all_but(keep: list[int]) -> None:
    """Close every file that a child is not meant to have; standard error goes nowhere anyway."""
    first = 0
    for descriptor in sorted(keep):
        if first < descriptor:  # with an empty range, closerange closes everything
            os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, 4096)


def _read(length: int) -> bytes:
    """Return exactly so many bytes of standard input; the process ends where there are no more."""
    found = bytearray()
    while len(found) < length:
        part = os.read(0, min(length - len(found), _CHUNK))
        if not part:
            os._exit(0)
        found += part
    return bytes(found)


def _write(message: Mapping[str, Any]) -> None:
    content = json.dumps(message).encode()
    _write_all(1, struct.pack("!I", len(content)) + content)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
