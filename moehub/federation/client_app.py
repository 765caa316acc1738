"""Flower's end of a node: each message becomes a task on the contributor's desk, and its reply a message.

Flower starts a process for every message. It imports no torch: the desk's worker has it loaded.
"""

import re
import traceback
from collections.abc import Callable

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode

from moehub import __version__
from moehub import base as bases
from moehub.console import console
from moehub.errors import DataError, FederationError, MoehubError
from moehub.federation import messages
from moehub.federation.messages import DescribeTask, Description
from moehub.federation.node import contributor, device
from moehub.federation.node.desk import KINDS, Desk

app = ClientApp()

_FOLDERS = re.compile(r"(?<![\w.:/])/(?:[^/\s'\"]+/)+")
"""The folders of an absolute path."""


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """Say who this node is, and which base it has."""

    def answer() -> RecordDict:
        task = messages.facts(DescribeTask, message.content)
        node, folder = contributor.from_flower(context.node_config)
        found = contributor.base_of(node, task.base, task.revision)
        holder = Desk(folder).service.last()
        return messages.content(
            Description(
                domain=node.domain,
                name=node.name if node.credit else "",
                digest=bases.weights_digest(found.folder),
                rank=node.rank,
                device=(holder.device if holder is not None else "") or device.kind(),
                version=__version__,
            )
        )

    return _replied(message, answer)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train for a round."""
    return _replied(message, lambda: _done(messages.TRAIN, message, context))


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Measure the base and the expert on what is held out."""
    return _replied(message, lambda: _done(messages.EVALUATE, message, context))


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    """Count what is trained on."""
    return _replied(message, lambda: _done(messages.STATISTICS, message, context))


def _done(kind: str, message: Message, context: Context) -> RecordDict:
    task = messages.facts(KINDS[kind][0], message.content)
    node, folder = contributor.from_flower(context.node_config)
    if task.domain != node.domain:
        raise FederationError(f"this node's domain is {node.domain!r}, it was asked for {task.domain!r}")
    facts, arrays = Desk(folder).ask(kind, task, messages.arrays(message.content), node)
    return messages.content(facts, arrays)


def _replied(message: Message, answer: Callable[[], RecordDict]) -> Message:
    """Return the reply, or one sentence about what went wrong; nothing about the text leaves with it."""
    try:
        return Message(answer(), reply_to=message)
    except DataError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        reason = "the node's text cannot be used: its owner finds the reason in the node's log"
    except MoehubError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        reason = _FOLDERS.sub("…/", str(error))
    except Exception as error:  # noqa: BLE001 (Flower would send what it says, whatever that is)
        console.print(traceback.format_exc(), markup=False, soft_wrap=True)
        reason = f"the node failed ({type(error).__name__}): its owner finds the reason in the node's log"
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
