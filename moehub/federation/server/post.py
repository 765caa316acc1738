"""Tasks go out and replies come in, a few at a time, so that memory holds a handful however many nodes there are."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import httpx
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import RunNotRunningException

from moehub.errors import FederationError
from moehub.federation import messages

PAUSE = 1.0
"""Seconds between two looks for replies."""
_TOGETHER = 4
"""Messages that are sent or fetched at once."""
_GRACE = 60.0
"""Seconds that Flower keeps a message after nobody waits for its reply any more."""
_LONGEST = 300


@dataclass(frozen=True)
class Letter:
    """One task for one node."""

    node: int
    """Flower's id of it."""
    kind: str
    """One of the message types in `moehub.federation.messages`."""
    task: Any
    """One of the dataclasses there."""
    arrays: ArrayRecord | None = None


@dataclass(frozen=True)
class Answer:
    """What became of a letter: its content, or why there is none."""

    letter: Letter
    content: RecordDict | None
    reason: str = ""


@dataclass(frozen=True)
class Post:
    """Flower's grid, with a clock."""

    grid: Grid
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    pause: float = PAUSE

    def online(self) -> set[int]:
        """Return the ids of the nodes that are connected."""
        return {int(node) for node in self._flower(self.grid.get_node_ids)}

    def send(self, letters: Iterable[Letter], seconds: float) -> tuple[dict[str, Letter], list[Letter]]:
        """Send letters that may be answered within `seconds`; return those sent by message id, and the others."""
        sent: dict[str, Letter] = {}
        unsent: list[Letter] = []
        for group in _groups(letters):
            ids = list(self._flower(self.grid.push_messages, [_message(each, seconds) for each in group]))
            for letter, found in zip(group, [*ids, *[None] * (len(group) - len(ids))], strict=True):
                if found:
                    sent[found] = letter
                else:
                    unsent.append(letter)
        return sent, unsent

    def receive(self, waiting: Mapping[str, Letter]) -> Iterator[tuple[str, Answer]]:
        """Yield the replies that are there now, with the id of the message that each answers."""
        for group in _groups(list(waiting)):
            for reply in self._flower(self.grid.pull_messages, group):
                # Flower's own error replies come from node 1: only this says what they answer.
                asked = reply.metadata.reply_to_message_id
                if asked in waiting:
                    yield asked, _answer(waiting[asked], reply)

    def ask(self, letters: Iterable[Letter], seconds: float, *, idle: Callable[[], set[int]]) -> Iterator[Answer]:
        """Yield an answer for every letter, at the latest after `seconds`.

        A node whose ClientApp failed is asked once more while there is time and it is connected. `idle` is called
        between looks, and returns the ids of the nodes that are connected.
        """
        ends = self.clock() + seconds
        waiting, unsent = self.send(letters, seconds)
        yield from (Answer(letter, None, "it left before it could be asked") for letter in unsent)
        again: set[tuple[int, str]] = set()
        while waiting:
            for asked, answer in self.receive(dict(waiting)):
                letter = waiting.pop(asked)
                left = ends - self.clock()
                once = (letter.node, letter.kind) not in again
                if answer.content is None and once and left > 0 and letter.node in idle():
                    again.add((letter.node, letter.kind))
                    sent, unsent = self.send([letter], left)
                    waiting |= sent
                    yield from (answer for _ in unsent)
                else:
                    yield answer
            if not waiting:
                break
            if self.clock() >= ends:
                yield from (Answer(each, None, f"no reply within {seconds:g} s") for each in waiting.values())
                break
            idle()
            self.sleep(self.pause)

    def _flower(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except httpx.HTTPError as error:
            raise FederationError(
                f"Flower's SuperLink refuses a request of the server ({_plain(str(error))}): look at "
                "`moehub federate logs`, then go on from the last checkpoint with --resume"
            ) from error
        except RunNotRunningException as error:
            raise FederationError(
                "Flower has ended the run: go on from the last checkpoint with --resume, or look at "
                "`moehub federate logs` for why"
            ) from error


def _groups(letters: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(letters)
    while group := list(islice(rest, _TOGETHER)):
        yield group


def _message(letter: Letter, seconds: float) -> Message:
    return Message(
        messages.content(letter.task, letter.arrays),
        dst_node_id=letter.node,
        message_type=letter.kind,
        ttl=seconds + _GRACE,
    )


def _answer(letter: Letter, reply: Message) -> Answer:
    if reply.has_error():
        return Answer(letter, None, _plain(reply.error.reason or f"error {reply.error.code}"))
    if reply.metadata.src_node_id != letter.node:
        return Answer(letter, None, f"node {reply.metadata.src_node_id} answered in its place")
    return Answer(letter, reply.content)


def _plain(reason: str) -> str:
    """Return a node's reason as one short line: whoever sent it may have written anything."""
    # Flower wraps an exception as <class 'moehub.errors.DataError'>:<'there is no text'>.
    _, wrapped, inner = reason.partition(">:<'")
    text = inner.removesuffix("'>") if wrapped else reason
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}…"
