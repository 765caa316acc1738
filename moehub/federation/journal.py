"""What happened in a run, one line of JSON per event: `federate up` shows it as it grows, `federate status` reads it.

Nodes appear under labels: the name that a node agreed to, or the name that its operator registered, or `node-` and
the first digits of its id.
"""

import dataclasses
import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from moehub.errors import FederationError

JOURNAL = "journal.jsonl"
_LONGEST = 1 << 20
"""Bytes of the longest line."""


@dataclass(frozen=True)
class Began:
    """The run began, or went on from a checkpoint."""

    kind: ClassVar[str] = "began"
    run: str
    """The federation's own name for the run."""
    base: str
    """Reference of the base."""
    aggregation: str
    rounds: int
    after: int
    """Rounds done before; 0: from the beginning."""


@dataclass(frozen=True)
class Joined:
    """A node takes part."""

    kind: ClassVar[str] = "joined"
    node: str
    domain: str
    device: str


@dataclass(frozen=True)
class Refused:
    """A node, or one reply of it, is left out for what it is or says."""

    kind: ClassVar[str] = "refused"
    round: int
    """0: before the first round."""
    node: str
    domain: str
    """Empty where it is not known."""
    reason: str


@dataclass(frozen=True)
class Missing:
    """A node did not answer in a round: late, gone, or failed."""

    kind: ClassVar[str] = "missing"
    round: int
    node: str
    domain: str
    reason: str


@dataclass(frozen=True)
class RoundBegan:
    """Tasks were sent out."""

    kind: ClassVar[str] = "round"
    round: int
    domains: dict[str, int]
    """Domain → nodes that are asked."""


@dataclass(frozen=True)
class Replied:
    """A reply was accepted."""

    kind: ClassVar[str] = "replied"
    round: int
    node: str
    domain: str
    tokens: int
    loss: float
    seconds: float
    """Of the node's training."""
    sent: int
    """Bytes of arrays that went to the node."""
    received: int
    """Bytes of arrays that came from it."""


@dataclass(frozen=True)
class Aggregated:
    """A domain finished a round."""

    kind: ClassVar[str] = "aggregated"
    round: int
    domain: str
    nodes: int
    loss: float
    """Training loss, weighted by tokens."""
    sent: int
    received: int
    seconds: float
    """From sending to the checkpoint."""
    clipped: tuple[str, ...] = ()
    """Nodes whose update was scaled down."""
    excluded: tuple[str, ...] = ()
    """Nodes that the aggregation itself left out."""
    discarded: float = 0.0
    """Share of the energy that did not fit into the rank."""
    epsilon: float | None = None
    """Privacy spent so far."""


@dataclass(frozen=True)
class GaveUp:
    """A domain ended without an expert."""

    kind: ClassVar[str] = "gave up"
    round: int
    domain: str
    reason: str


@dataclass(frozen=True)
class Published:
    """A domain's expert is finished."""

    kind: ClassVar[str] = "published"
    domain: str
    folder: str
    nodes: int
    base_loss: float | None
    expert_loss: float | None
    tokens: int
    """Tokens held out by all nodes together, that the losses are means over."""


@dataclass(frozen=True)
class Ended:
    """The run is over."""

    kind: ClassVar[str] = "ended"
    experts: int
    seconds: float
    failure: str = ""
    """Empty where all went well."""


Event: TypeAlias = Began | Joined | Refused | Missing | RoundBegan | Replied | Aggregated | GaveUp | Published | Ended
_KINDS: dict[str, type[Any]] = {each.kind: each for each in Event.__args__}


@dataclass(frozen=True)
class Entry:
    """An event and when it happened."""

    time: float
    """Seconds since the epoch."""
    event: Event


class Journal:
    """The journal of a run in its output folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL

    def write(self, event: Event) -> None:
        """Append one event; it is on disk when this returns, or the journal is as it was."""
        values = {"time": round(time.time(), 3), "kind": event.kind, **dataclasses.asdict(event)}
        line = f"{json.dumps(values)}\n".encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b", buffering=0) as file:
            before = _end(file)
            file.truncate(before)
            try:
                _append(file, line)
            except OSError:
                file.truncate(before)
                raise

    def read(self, since: int = 0) -> tuple[list[Entry], int]:
        """Return the entries after byte `since`, and where to read on; a line that is still being written waits."""
        try:
            with self.path.open("rb") as file:
                file.seek(since)
                text = file.read()
        except FileNotFoundError:
            return [], since
        whole = text[: text.rfind(b"\n") + 1]
        return [_entry(line) for line in whole.decode().splitlines()], since + len(whole)

    def entries(self) -> Iterator[Entry]:
        """Yield every entry."""
        yield from self.read()[0]


def _end(file: FileIO) -> int:
    """Return where the last whole line ends: a machine that lost its power may have written part of one."""
    end = file.seek(0, os.SEEK_END)
    begin = file.seek(max(0, end - _LONGEST))
    text = file.read()
    return begin + text.rfind(b"\n") + 1 if b"\n" in text else begin


def _append(file: FileIO, line: bytes) -> None:
    if file.write(line) < len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file.name))
    os.fsync(file.fileno())


def _entry(line: str) -> Entry:
    try:
        values = json.loads(line)
        at, kind = float(values.pop("time")), _KINDS[values.pop("kind")]
        return Entry(
            at, kind(**{name: tuple(each) if isinstance(each, list) else each for name, each in values.items()})
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FederationError(
            f"the journal holds {line!r:.80}, which no moehub wrote ({error}): remove the line, or the journal"
        ) from error
