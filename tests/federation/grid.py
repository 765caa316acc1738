"""A federation in one process: Flower's grid without Flower's processes, a clock without waiting, and nodes that fail.

Messages go through Flower's own serialisation, so what arrives is what a real node would get. Replies are made when
they are fetched, not before.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from moehub.federation import messages
from moehub.federation.form import Form
from moehub.federation.messages import (
    Counted,
    DescribeTask,
    Description,
    Evaluated,
    EvaluateTask,
    StatisticsTask,
    Trained,
    TrainTask,
)
from moehub.federation.weights import A, Weights

SERVER = 1
"""Flower's own error replies come from this node."""
Respond = Callable[[Message], Message | None]
"""A node: what it replies to a message, or None where it has not replied yet."""


class Clock:
    """Time that passes only when somebody sleeps, and what happens at which time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.now += seconds
        due = [event for at, event in self._events if at <= self.now]
        self._events = [each for each in self._events if each[0] > self.now]
        for event in due:
            event()

    def at(self, seconds: float, event: Callable[[], None]) -> None:
        """Let something happen at a time."""
        self._events.append((seconds, event))


class LocalGrid(Grid):
    """Flower's grid to nodes in this process."""

    def __init__(self, nodes: dict[int, Respond] | None = None, *, wire: bool = True) -> None:
        self.nodes: dict[int, Respond] = dict(nodes or {})
        self.held = 0
        """Most replies that were fetched in one call."""
        self.pushed: Counter[int] = Counter()
        """Node → messages that somebody tried to send it."""
        self._wire = wire
        # In a ServerApp's process Flower has set these before anybody makes a message.
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, SERVER, 1
        self._messages: dict[str, Message] = {}

    def join(self, node: int, respond: Respond) -> None:
        """Connect a node."""
        self.nodes[node] = respond

    def leave(self, node: int) -> None:
        """Disconnect a node: Flower answers in its place."""
        self.nodes.pop(node, None)

    def set_run(self, run: Any) -> None:
        """Take no run: there is only one."""

    @property
    def run(self) -> Any:
        """No run of Flower's."""
        raise NotImplementedError

    def create_message(self, *_: Any, **__: Any) -> Message:
        """Make no message: `Message` does."""
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        """Return the connected nodes."""
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Keep messages for their nodes; one for a node that is not there gets no id, as in Flower."""
        return [self._push(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies that the nodes have by now."""
        replies = [reply for each in message_ids if (reply := self._pull(each)) is not None]
        self.held = max(self.held, len(replies))
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send nothing: it would collect all replies at once."""
        raise NotImplementedError

    def _push(self, message: Message) -> str:
        self.pushed[message.metadata.dst_node_id] += 1
        if message.metadata.dst_node_id not in self.nodes:
            return ""
        found = f"message-{len(self._messages)}" if not self._wire else message.object_id
        message.metadata.__dict__["_message_id"] = found
        self._messages[found] = message
        return found

    def _pull(self, message_id: str) -> Message | None:
        message = self._messages[message_id]
        respond = self.nodes.get(message.metadata.dst_node_id)
        reply = _gone(message) if respond is None else respond(self._carried(message))
        if reply is not None:
            # Flower lets a message go when it is answered.
            message.__dict__["_content"] = None
        return reply if reply is None or respond is None else self._carried(reply)

    def _carried(self, message: Message) -> Message:
        if not self._wire:
            return message
        contents = {name: each.deflate() for name, each in get_all_nested_objects(message).items()}
        found: Message = inflate_object_from_contents(message.object_id, contents)
        found.metadata.__dict__["_message_id"] = message.metadata.message_id
        return found


def _gone(message: Message) -> Message:
    reply = Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = SERVER
    return reply


def app_node(app: Any, config: dict[str, Any], node: int) -> Respond:
    """Return a node that answers with the handlers of a ClientApp, under a `--node-config`."""

    def respond(message: Message) -> Message:
        return app(message, Context(1, node, config, RecordDict(), {}))

    return respond


@dataclass
class FakeNode:
    """A node whose training is arithmetic: the same task always has the same reply."""

    form: Form
    seed: int
    domain: str = "law"
    name: str = ""
    rank: int = 0
    fault: str = ""
    """What is wrong with it: see `_FAULTS`, `silent`, `error`, `late`, `undescribed` or `hesitant`."""
    clock: Clock | None = None
    delay: float = 0.0
    """Seconds that a `late` node takes to train, and a `hesitant` one to say who it is."""
    scale: float = 0.1
    asked: Counter[str] = field(default_factory=Counter)
    """Message type → times that it was asked."""
    tasks: list[Any] = field(default_factory=list)
    _since: dict[str, float] = field(default_factory=dict)

    def __call__(self, message: Message) -> Message | None:
        """Answer one message, or nothing yet."""
        kind = message.metadata.message_type
        if kind == messages.TRAIN and self.fault == "silent":
            return None
        slow = {messages.TRAIN: "late", messages.DESCRIBE: "hesitant"}
        if self.fault and self.fault == slow.get(kind) and not self._ready(message):
            return None
        self.asked[kind] += 1
        if (kind == messages.TRAIN and self.fault == "error") or (
            kind == messages.DESCRIBE and self.fault == "undescribed"
        ):
            return Message(Error(2, "<class 'moehub.errors.DataError'>:<'there is\nno text'>"), reply_to=message)
        facts, arrays = self._answer(kind, message.content)
        return Message(messages.content(facts, arrays), reply_to=message)

    def _ready(self, message: Message) -> bool:
        assert self.clock is not None
        since = self._since.setdefault(message.metadata.message_id, self.clock())
        return self.clock() - since >= self.delay

    def _answer(self, kind: str, content: RecordDict) -> tuple[Any, Any]:
        if kind == messages.DESCRIBE:
            return self._described(messages.facts(DescribeTask, content)), None
        if kind == messages.TRAIN:
            task = messages.facts(TrainTask, content)
            self.tasks.append(task)
            return self._trained(task, messages.arrays(content))
        if kind == messages.EVALUATE:
            asked = messages.facts(EvaluateTask, content)
            return Evaluated(asked.task, asked.digest, 5.0 + self.seed / 8, 4.0 + self.seed / 16, 64 + self.seed), {}
        return self._counted(messages.facts(StatisticsTask, content))

    def _described(self, task: DescribeTask) -> Description:
        digest = "f" * 64 if self.fault == "other base" else task.digest
        return Description(self.domain, self.name, digest, self.rank, "cpu", "0.1.0")

    def _trained(self, task: TrainTask, start: Weights) -> tuple[Trained, Weights]:
        rank = self.rank or json.loads(task.settings)["rank"]
        weights = changed(start, self.form, rank, seed=(self.seed, task.round), scale=self.scale)
        facts = Trained(task.task, task.digest, rank, 16 + self.seed, 10 + self.seed, "pretrain", 3.0 / task.round, 0.5)
        return _FAULTS.get(self.fault, _faultless)(facts, weights)

    def _counted(self, task: StatisticsTask) -> tuple[Counted, Any]:
        settings = json.loads(task.settings)
        ids = np.random.default_rng(self.seed).integers(0, self.form.vocabulary, 400)
        V = self.form.vocabulary
        contexts = (np.array([V, V, *ids[:-2]]) * 1000003 + np.array([V, *ids[:-1]])) % (1 << 31)
        arrays = {
            **_sparse("unigrams", ids),
            **_sparse("pairs", (ids[:-1] * 1000003 + ids[1:]) % (1 << settings["pair_bits"])),
            **_sparse("triples", (contexts * 1000003 + ids) % (1 << settings["triple_bits"])),
        }
        if self.fault == "negative counts":
            arrays["unigrams.count"] = -arrays["unigrams.count"]
        facts = Counted(
            task.task,
            task.digest,
            task.tokenizer,
            self.form.vocabulary,
            settings["pair_bits"],
            settings["triple_bits"],
            0,
            recipe="",
            features=0,
        )
        return facts, arrays


def changed(start: Weights, form: Form, rank: int, *, seed: tuple[int, int], scale: float = 0.1) -> Weights:
    """Return weights a small random step away from `start`, of another rank where it is another."""
    draws = np.random.default_rng(seed)
    found = {}
    for name, shape in form.shapes(rank).items():
        if name in start:
            step = draws.standard_normal(shape).astype(np.float32)
            kept = start[name][:rank] if name.endswith(A) else start[name][:, :rank]
            found[name] = kept + np.float32(scale) * step
    return found


def _sparse(name: str, values: Any) -> dict[str, Any]:
    index, count = np.unique(values, return_counts=True)
    return {f"{name}.index": index.astype(np.int32), f"{name}.count": count.astype(np.int64)}


def _faultless(facts: Trained, weights: Weights) -> tuple[Trained, Weights]:
    return facts, weights


def _nan(facts: Trained, weights: Weights) -> tuple[Trained, Weights]:
    weights[max(weights)][0, 0] = np.nan
    return facts, weights


def _wrong_shapes(facts: Trained, weights: Weights) -> tuple[Trained, Weights]:
    return facts, {name: values[:1] for name, values in weights.items()}


def _huge(facts: Trained, weights: Weights) -> tuple[Trained, Weights]:
    return facts, {name: values * 100 for name, values in weights.items()}


def _renamed(facts: Trained, weights: Weights) -> tuple[Trained, Weights]:
    return facts, {f"{name}.evil": values for name, values in weights.items()}


def _doubles(facts: Trained, weights: Weights) -> tuple[Trained, Weights]:
    return facts, {name: values.astype(np.float64) for name, values in weights.items()}


_FAULTS: dict[str, Callable[[Trained, Weights], tuple[Trained, Weights]]] = {
    "nan": _nan,
    "wrong shapes": _wrong_shapes,
    "100x norms": _huge,
    "other names": _renamed,
    "float64": _doubles,
    "negative tokens": lambda facts, weights: (dataclasses.replace(facts, tokens=-5), weights),
    "other task": lambda facts, weights: (dataclasses.replace(facts, task="0" * 64), weights),
    "base changed": lambda facts, weights: (dataclasses.replace(facts, digest="f" * 64), weights),
    "nan loss": lambda facts, weights: (dataclasses.replace(facts, loss=float("nan")), weights),
}
