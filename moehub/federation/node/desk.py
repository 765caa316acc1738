"""The desk: a folder through which a message's short-lived process has its task done by a worker that stays.

    DESK/tasks/NAME/    task.json  arrays.safetensors  asked  work/      `work` is the worker's, `asked` the askers'
    DESK/replies/NAME/  reply.json  arrays.safetensors

NAME is the task's id and who it is for, so a desk may serve all nodes of a machine. Folders appear whole or not at
all, under one short lock. A task is done once, however often and by however many processes it is asked for; what went
wrong is told to those who wait, and tried again when somebody asks again. torch is not imported here.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from moehub import config, errors, files
from moehub.errors import ConfigError, FederationError, MoehubError
from moehub.federation import messages
from moehub.federation.messages import Arrays, Asked
from moehub.federation.node.service import Patience, Service
from moehub.federation.settings import NodeConfig

KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    messages.TRAIN: (messages.TrainTask, messages.Trained),
    messages.EVALUATE: (messages.EvaluateTask, messages.Evaluated),
    messages.STATISTICS: (messages.StatisticsTask, messages.Counted),
}
"""Kind of message → facts of the task, facts of the reply."""

_ID = re.compile(r"[0-9a-f]{8,128}")
_TASK, _REPLY, _ARRAYS, _ASKED, _WORK = "task.json", "reply.json", "arrays.safetensors", "asked", "work"
_POLL = 0.05
_LOOK = 1.0
"""Seconds between two looks at whether somebody works at all."""
_FORGOTTEN = 60.0
"""Seconds after which a task that nobody asks for any more is not begun."""
_STALE = 86400.0
"""Seconds after which such a task is removed."""
_KEPT = 8
"""Replies that are kept for each contributor, in case they are asked for again."""


@dataclass(frozen=True)
class Task:
    """A task as it lies on the desk."""

    kind: str
    facts: Any
    arrays: dict[str, np.ndarray[Any, Any]]
    contributor: NodeConfig


class Desk:
    """A desk; its folder is made where there is none, readable by its owner alone."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for part in (folder, folder / "tasks", folder / "replies"):
            part.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.service = Service(folder)

    def ask(self, kind: str, task: Asked, arrays: Arrays, contributor: NodeConfig) -> tuple[Any, Arrays]:
        """Return the reply to a task: one that is kept, or what a worker, or where none serves this process, makes.

        Raises:
            MoehubError: the task failed; of the kind that its worker met.
            FederationError: the worker died and none came in its place.
        """
        asked = Task(kind, task, dict(arrays), contributor)
        name = _name(asked)
        self.put(name, asked, again=True)
        patience, looked = Patience(self.service), 0.0
        while (answer := self.answer(name, KINDS[kind][1])) is None:
            if time.monotonic() - looked >= _LOOK:
                looked = time.monotonic()
                self.put(name, asked)
                if patience.nobody_works():
                    self._work_off(name)
                    continue
            time.sleep(_POLL)
        return answer

    def _work_off(self, name: str) -> None:
        with self.service.taken(resident=False) as taken:
            if taken and (self._task(name) / _TASK).exists():
                from moehub.federation.node import worker
                from moehub.federation.node.memory import Memory

                worker.work_off(self, name, Memory())

    def put(self, name: str, task: Task, *, again: bool = False) -> None:
        """Lay a task on the desk unless it, or its reply, is there; with `again`, an error is no reply."""
        with self._locked():
            self._sweep()
            reply = self._reply(name) / _REPLY
            if again and reply.exists() and "error" in _read(reply):
                _remove(reply.parent)
            if reply.exists():
                return
            if not (self._task(name) / _TASK).exists():
                with files.new_folder(self._task(name)) as building:
                    _write(building, _TASK, _stored(task), task.arrays)
            (self._task(name) / _ASKED).touch()

    def waiting(self) -> list[str]:
        """Return the names of the tasks that somebody asks for, in the order in which they came."""
        found = []
        for path in _visible(self.folder / "tasks"):
            with contextlib.suppress(FileNotFoundError):
                asked = time.time() - (path / _ASKED).stat().st_mtime < _FORGOTTEN
                if asked and not (self._reply(path.name) / _REPLY).exists():
                    found.append(((path / _TASK).stat().st_mtime_ns, path.name))
        return [name for _, name in sorted(found)]

    def task(self, name: str) -> Task:
        """Return a task that lies on the desk.

        Raises:
            FederationError: it cannot be read.
        """
        try:
            values, arrays = _read(self._task(name) / _TASK), _arrays(self._task(name))
            kind = KINDS[values["kind"]][0]
            facts = config.from_mapping(kind, values["facts"], source="the task")
            contributor = config.from_mapping(NodeConfig, values["contributor"], source="the task")
        except (OSError, ValueError, KeyError, TypeError, SafetensorError, ConfigError) as error:
            raise FederationError(f"the task in {self._task(name)} cannot be read ({error}): remove it") from error
        return Task(values["kind"], facts, arrays, contributor)

    def workspace(self, name: str) -> Path:
        """Return the folder in which a task is worked on; it goes when the task is done."""
        return self._task(name) / _WORK

    def reply(self, name: str, facts: Any, arrays: Arrays) -> None:
        """Answer a task."""
        self._answer(name, {"facts": dataclasses.asdict(facts)}, arrays)

    def refuse(self, name: str, error: MoehubError) -> None:
        """Answer a task with what went wrong."""
        self._answer(name, {"error": str(error), "kind": type(error).__name__}, {})

    def _answer(self, name: str, values: dict[str, Any], arrays: Arrays) -> None:
        with self._locked():
            with files.new_folder(self._reply(name)) as building:
                _write(building, _REPLY, values, arrays)
            _remove(self._task(name))

    def answer(self, name: str, kind: type[Any]) -> tuple[Any, Arrays] | None:
        """Return the reply to a task, None while there is none.

        Raises:
            MoehubError: what went wrong.
            FederationError: the reply cannot be read.
        """
        path = self._reply(name)
        if not (path / _REPLY).exists():
            return None
        with self._locked():
            try:
                values, arrays = _read(path / _REPLY), _arrays(path)
                facts = None if "error" in values else config.from_mapping(kind, values["facts"], source="the reply")
                (path / _REPLY).touch()
            except FileNotFoundError:
                return None
            except (OSError, ValueError, KeyError, TypeError, SafetensorError, ConfigError) as error:
                _remove(path)
                raise FederationError(f"the reply in {path} cannot be read ({error}): ask again") from error
        if facts is None:
            raise getattr(errors, values["kind"], FederationError)(values["error"])
        return facts, arrays

    def _sweep(self) -> None:
        """Remove what killed processes left, tasks that are answered or forgotten, and old replies."""
        for room in ("tasks", "replies"):
            for path in (self.folder / room).glob(".*"):
                shutil.rmtree(path, ignore_errors=True)
        for path in _visible(self.folder / "tasks"):
            if time.time() - _changed(path / _ASKED) > _STALE or (self._reply(path.name) / _REPLY).exists():
                _remove(path)
        replies = sorted(_visible(self.folder / "replies"), key=lambda path: _changed(path / _REPLY), reverse=True)
        kept: dict[str, int] = {}
        for path in replies:
            owner = path.name.rpartition("-")[2]
            kept[owner] = kept.get(owner, 0) + 1
            if kept[owner] > _KEPT:
                _remove(path)

    def _task(self, name: str) -> Path:
        return self.folder / "tasks" / name

    def _reply(self, name: str) -> Path:
        return self.folder / "replies" / name

    def _locked(self) -> FileLock:
        return FileLock(self.folder / "desk.lock")


def _name(task: Task) -> str:
    """Return the task's name on the desk.

    Raises:
        FederationError: its id is none.
    """
    if not _ID.fullmatch(task.facts.task):
        raise FederationError(f"the task's id is {task.facts.task!r:.80}, expected 8 to 128 hexadecimal digits")
    owner = hashlib.sha256(json.dumps(_stored(task)["contributor"], sort_keys=True).encode()).hexdigest()
    return f"{task.facts.task}.{task.kind}-{owner[:16]}"


def _stored(task: Task) -> dict[str, Any]:
    contributor = {**dataclasses.asdict(task.contributor), "data": [str(path) for path in task.contributor.data]}
    return {"kind": task.kind, "facts": dataclasses.asdict(task.facts), "contributor": contributor}


def _write(folder: Path, name: str, values: dict[str, Any], arrays: Arrays) -> None:
    files.write_text(folder / name, files.to_json(values))
    if arrays:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / _ARRAYS)


def _read(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise TypeError(f"it holds a {type(values).__name__}")
    return values


def _arrays(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    return load_file(folder / _ARRAYS) if (folder / _ARRAYS).exists() else {}


def _remove(path: Path) -> None:
    """Remove a folder; it is gone in one step, whatever happens."""
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=".gone."))
    with contextlib.suppress(FileNotFoundError):
        path.rename(aside / path.name)
    shutil.rmtree(aside, ignore_errors=True)


def _visible(room: Path) -> Iterable[Path]:
    return [path for path in room.iterdir() if not path.name.startswith(".")]


def _changed(path: Path) -> float:
    """Return when a file was last touched; one that is missing counts as long ago."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
