"""A real federation on loopback, started as a person starts it, whose processes can be looked at and killed."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from moehub.federation.deploy import pids
from moehub.federation.journal import Entry, Event, Journal

CHECKOUT = Path(__file__).parents[2]
TEXTS = {
    "north": "The lessee shall pay the rent of house {0} by day {1}. ",
    "south": "The court of {0} finds for the tenant of flat {1}. ",
    "code": "def add_{0}(a, b): return a + b + {1}. ",
}
NODES = (
    {"domain": "law", "data": "north.txt", "name": "St Mary", "credit": True},
    {"domain": "law", "data": "south.txt", "name": "Secret Ltd"},
    {"domain": "code", "data": "code.txt"},
)


def gathering(folder: Path, base: Path, **settings: object) -> Path:
    """Write a federation of two domains and three nodes, and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in TEXTS.items():
        lines = (text.format(number, number * 7 % 31) * 3 for number in range(60))
        (folder / f"{name}.txt").write_text("\n\n".join(lines))
    train = {"rank": 4, "targets": ["q_proj", "v_proj"], "batch_size": 4, "context_length": 64, "pair_bits": 10}
    values = {"base": str(base), "rounds": 2, "steps": 8, "train": train, "nodes": list(NODES), **settings}
    (folder / "nodes.yaml").write_text(yaml.safe_dump(values))
    return folder / "nodes.yaml"


@dataclass
class Launched:
    """A `moehub federate up` that runs."""

    output: Path
    command: "subprocess.Popen[str]"
    seen: dict[int, psutil.Process] = field(default_factory=dict)
    """Every process that it had whenever we looked."""

    @property
    def place(self) -> Path:
        return self.output / ".flower"

    def entries(self) -> list[Entry]:
        return list(Journal(self.output).entries())

    def events(self, kind: type[Event]) -> list[Event]:
        return [entry.event for entry in self.entries() if isinstance(entry.event, kind)]

    def look(self) -> None:
        with contextlib.suppress(psutil.Error):
            parent = psutil.Process(self.command.pid)
            self.seen |= {each.pid: each for each in [parent, *parent.children(recursive=True)]}

    def until(self, holds: Callable[[], object], seconds: float = 240) -> None:
        """Wait for something; the command must not end before it."""
        end = time.monotonic() + seconds
        while not holds():
            self.look()
            assert self.command.poll() is None, "".join(self.command.communicate())
            assert time.monotonic() < end, "it did not happen"
            time.sleep(0.1)

    def finish(self, seconds: float = 300) -> tuple[int, str, str]:
        """Wait for the end; return exit code, standard output and standard error."""
        end = time.monotonic() + seconds
        while self.command.poll() is None and time.monotonic() < end:
            self.look()
            time.sleep(0.2)
        out, err = self.command.communicate(timeout=10)
        return self.command.returncode, out, err

    def kill(self, name: str) -> int:
        """Kill one of its processes by its pid; return the pid."""
        process = pids.recorded(self.place)[name]
        process.kill()
        return int(process.pid)

    def left(self, seconds: float = 5) -> list[str]:
        """Return the command lines of the processes that still live after `seconds`."""
        end = time.monotonic() + seconds
        while (living := [each for each in self.seen.values() if _lives(each)]) and time.monotonic() < end:
            time.sleep(0.1)
        return [" ".join(each.cmdline()) for each in living]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


@contextlib.contextmanager
def launched(file: Path, output: Path, options: Sequence[str] = (), **environment: str) -> Iterator[Launched]:
    """Start `moehub federate up`, and end it, if need be, by its pid."""
    arguments = ["federate", "up", "--nodes", str(file), "--output", str(output), *options]
    command = subprocess.Popen(
        [sys.executable, "-m", "moehub", *arguments],
        cwd=CHECKOUT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Launched(output, command)
    finally:
        if command.poll() is None:
            command.terminate()
            command.communicate(timeout=60)


def result(out: str) -> dict[str, Any]:
    """Return what `--json` printed."""
    found: dict[str, Any] = json.loads(out)
    return found
