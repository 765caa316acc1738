"""The worker: `python -m moehub.federation.node.worker DESK` serves a desk until it is ended.

It keeps torch, the base and the text loaded, so that a round costs its training. End it however you like: the task
that it was at stays on the desk, and goes on from its last checkpoint when a worker comes.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from moehub.console import console
from moehub.errors import FederationError, MoehubError
from moehub.federation.node.desk import Desk
from moehub.federation.node.service import Holder

if TYPE_CHECKING:
    from moehub.federation.node.memory import Memory

_POLL = 0.05
_LOOK = 1.0
"""Seconds between two looks at whether the parent lives, or the desk is free."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the desk that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m moehub.federation.node.worker", description=__doc__)
    parser.add_argument("desk", type=Path, metavar="DESK", help="the folder that tasks come through")
    parser.add_argument("--idle", type=float, metavar="S", help="end after S seconds without a task")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process is gone")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at once, as SIGTERM does: whoever started it does the talking
    if options.parent is not None:
        threading.Thread(target=_end_with, args=(options.parent,), daemon=True).start()
    try:
        serve(Desk(options.desk), idle=options.idle)
    except OSError as error:
        sys.exit(f"the desk {options.desk} cannot be served: {error}")


def serve(desk: Desk, *, idle: float | None = None) -> None:
    """Work off the desk's tasks in the order in which they come; end after `idle` seconds without one."""
    with _turn(desk):
        _settle(desk)
        from moehub.federation.node.memory import Memory

        memory, last = Memory(), time.monotonic()
        while idle is None or time.monotonic() - last < idle:
            for name in desk.waiting()[:1]:
                work_off(desk, name, memory)
                last = time.monotonic()
            time.sleep(_POLL)


def work_off(desk: Desk, name: str, memory: "Memory") -> None:
    """Do one task and answer it; what goes wrong is the answer."""
    from moehub.federation.node import work

    try:
        task = desk.task(name)
        facts, arrays = work.perform(task.kind, task.facts, task.arrays, task.contributor, desk.workspace(name), memory)
        desk.reply(name, facts, arrays)
    except MoehubError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        desk.refuse(name, error)
    except Exception as error:  # noqa: BLE001 (whatever it is, those who wait are told)
        console.print(traceback.format_exc(), markup=False, soft_wrap=True)
        desk.refuse(name, FederationError(f"the task failed ({type(error).__name__}): the worker's log says why"))
        memory.forget()


@contextlib.contextmanager
def _turn(desk: Desk) -> Iterator[None]:
    """Serve the desk alone, as soon as nobody else does."""
    said = False
    while True:
        with desk.service.taken(resident=True) as taken:
            if taken:
                yield
                return
        if not said:
            said = True
            console.print(f"another process serves {desk.folder}: waiting for it to end", markup=False)
        time.sleep(_LOOK)


def _settle(desk: Desk) -> None:
    """Load what every task needs, and write down what this worker trains on."""
    from moehub.federation.node import device, work  # noqa: F401 (torch takes seconds: now, not in the first round)

    holder = desk.service.last()
    where = device.name(device.here())
    if holder is not None:
        desk.service.declare(Holder(holder.pid, holder.resident, holder.log, where))
    console.print(f"serving {desk.folder} on {where}", markup=False, soft_wrap=True)


def _end_with(parent: int, end: Callable[[int], None] = os._exit) -> None:
    """End this process when another one is gone; whatever it is at stays on the desk."""
    try:
        process = psutil.Process(parent)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            time.sleep(_LOOK)
    except psutil.NoSuchProcess:
        pass
    end(0)


if __name__ == "__main__":
    main()
