import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moehub import errors, files
from moehub.errors import DataError, FederationError, MoehubError
from moehub.federation import messages
from moehub.federation.messages import Counted, Evaluated, StatisticsTask, Trained, TrainTask
from moehub.federation.node import desk as desks
from moehub.federation.node import service, worker
from moehub.federation.node.desk import Desk, Task
from moehub.federation.settings import NodeConfig

NODE = NodeConfig("law", (Path("/text/law.txt"),), suppress_below=2)
ARRAYS = {"b": np.arange(6, dtype=np.float32).reshape(2, 3).T, "empty": np.zeros(0, np.int32), "a": np.array([2**40])}
TRAINED = Trained("0" * 64, "digest", 2, 100, 9, "pretrain", 1.5, 0.25)


def _task(number: int = 0, **changes: Any) -> TrainTask:
    asked = {"run": "run", "domain": "law", "base": "tiny", "revision": "", "digest": "d", "tokenizer": "t"}
    own = {"round": 1, "rounds": 2, "steps": 3, "frozen_a": True, "start": "s", "proximal": 0.0}
    return TrainTask(**{"task": f"{number:064x}", **asked, "settings": "{}", **own, **changes})


def _ask(desk: Desk, number: int = 0, node: NodeConfig = NODE) -> Any:
    return desk.ask(messages.TRAIN, _task(number), ARRAYS, node)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Answer tasks in the asker's own process, and note them."""
    found: list[Task] = []

    def work_off(desk: Desk, name: str, _: object) -> None:
        found.append(desk.task(name))
        desk.reply(name, TRAINED, ARRAYS)

    monkeypatch.setattr(worker, "work_off", work_off)
    return found


def _same(ours: Any, theirs: Any) -> bool:
    return ours.keys() == theirs.keys() and all(
        (ours[name].dtype, ours[name].tolist()) == (theirs[name].dtype, theirs[name].tolist()) for name in ours
    )


def test_task_and_reply_arrive_as_they_were(desk: Desk, done: list[Task]) -> None:
    """Facts, contributor and arrays, whatever their types, shapes and layout."""
    facts, arrays = _ask(desk)
    assert (facts, _same(arrays, ARRAYS)) == (TRAINED, True)
    (task,) = done
    assert (task.kind, task.facts, task.contributor) == (messages.TRAIN, _task(), NODE)
    assert _same(task.arrays, ARRAYS)


def test_equal_tasks_are_done_once(desk: Desk, done: list[Task]) -> None:
    """A message that Flower delivers again is answered from what is kept; other tasks and contributors are others."""
    for _ in range(3):
        assert _ask(desk)[0] == TRAINED
    assert len(done) == 1
    _ask(desk, 1)
    _ask(desk, node=dataclasses.replace(NODE, data=(Path("/text/other.txt"),)))
    assert len(done) == 3


_ASK = """
import sys, time, types
from pathlib import Path
from moehub.federation import messages
from tests.federation import test_desk

test_desk.desks._POLL = 0.01
def work_off(desk, name, _):
    with Path(sys.argv[2]).open("a") as file:
        file.write("done ")
    time.sleep(0.5)
    desk.reply(name, test_desk.TRAINED, test_desk.ARRAYS)
test_desk.worker.work_off = work_off
sys.modules["moehub.federation.node.memory"] = types.SimpleNamespace(Memory=lambda: None)
facts, arrays = test_desk._ask(test_desk.Desk(Path(sys.argv[1])))
assert facts == test_desk.TRAINED and test_desk._same(arrays, test_desk.ARRAYS)
"""


def test_processes_that_ask_at_once_get_one_result(tmp_path: Path) -> None:
    """One does the task, the others wait for it."""
    command = [sys.executable, "-c", _ASK, str(tmp_path / "desk"), str(tmp_path / "log")]
    askers = [subprocess.Popen(command) for _ in range(3)]
    assert [asker.wait(timeout=60) for asker in askers] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "done "


def test_failure_is_told_and_tried_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the kind that it was; who asks again gets another try, not the old sentence."""
    tries: list[str] = []

    def work_off(desk: Desk, name: str, _: object) -> None:
        tries.append(name)
        if len(tries) == 1:
            desk.refuse(name, DataError("law.txt is empty"))
        else:
            desk.reply(name, TRAINED, {})

    monkeypatch.setattr(worker, "work_off", work_off)
    with pytest.raises(DataError, match=r"^law.txt is empty$"):
        _ask(desk)
    assert _ask(desk) == (TRAINED, {})


def test_all_who_wait_hear_of_a_failure(desk: Desk) -> None:
    """Nobody takes the sentence away from the others."""
    heard: list[str] = []

    def ask() -> None:
        try:
            _ask(desk)
        except MoehubError as error:
            heard.append(str(error))

    with desk.service.taken(resident=False):
        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        (name,) = _until(desk.waiting)
        time.sleep(0.3)  # until both wait
        desk.refuse(name, FederationError("no"))
        for asker in askers:
            asker.join(10)
    assert heard == ["no", "no"]


def _until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 10
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


@pytest.mark.parametrize("name", ["", "abc", "../../etc/passwd", "0" * 129, "z" * 64, "0" * 63 + "\n"])
def test_task_must_have_an_id(desk: Desk, name: str) -> None:
    """It becomes the name of a folder, and whoever sent it may have written anything."""
    with pytest.raises(FederationError, match="expected 8 to 128 hexadecimal digits"):
        desk.ask(messages.TRAIN, _task(task=name), {}, NODE)
    assert list((desk.folder / "tasks").iterdir()) == []


def _put(desk: Desk, number: int) -> str:
    task = Task(messages.TRAIN, _task(number), {}, NODE)
    name = desks._name(task)
    desk.put(name, task)
    return name


def test_tasks_are_worked_off_in_the_order_in_which_they_came(desk: Desk) -> None:
    """Whatever their names are, and also if the first is asked for again."""
    names = [_put(desk, number) for number in (7, 3, 5)]
    _put(desk, 7)
    assert desk.waiting() == names


def test_tasks_that_nobody_asks_for_are_not_begun(desk: Desk) -> None:
    """After a while they are passed over, and later removed; asking again brings them back."""
    name = _put(desk, 0)
    asked = desk.folder / "tasks" / name / "asked"
    os.utime(asked, (0, time.time() - 61))
    assert desk.waiting() == []
    _put(desk, 0)
    assert desk.waiting() == [name]
    os.utime(asked, (0, time.time() - 86401))
    _put(desk, 1)
    assert not asked.exists()


def test_answered_task_is_not_begun_again(desk: Desk, tmp_path: Path) -> None:
    """A worker that was killed between the reply and the task's removal leaves both."""
    name = _put(desk, 0)
    (desk.folder / "tasks" / name).rename(tmp_path / name)
    desk.reply(name, TRAINED, {})
    (tmp_path / name).rename(desk.folder / "tasks" / name)
    assert desk.waiting() == []
    _put(desk, 1)
    assert [path.name[:64] for path in (desk.folder / "tasks").iterdir()] == [f"{1:064x}"]


def test_what_killed_processes_left_is_swept(desk: Desk) -> None:
    """Folders that were being built or removed."""
    for room in ("tasks", "replies"):
        (desk.folder / room / ".half.abc" / "work").mkdir(parents=True)
    name = _put(desk, 0)
    assert [path.name for path in (desk.folder / "tasks").iterdir()] == [name]
    assert list((desk.folder / "replies").iterdir()) == []


def test_last_replies_of_each_contributor_are_kept(desk: Desk, done: list[Task]) -> None:
    """Eight of them; one that is asked for again stays."""
    other = dataclasses.replace(NODE, domain="code")
    _ask(desk, 99, node=other)
    for number in range(8):
        _ask(desk, number)
        _age(desk)
    _ask(desk, 0)
    _age(desk)
    _ask(desk, 8)
    _age(desk)
    _ask(desk, 9)
    kept = sorted(int(path.name[:64], 16) for path in (desk.folder / "replies").iterdir())
    assert kept == [0, 2, 3, 4, 5, 6, 7, 8, 9, 99]
    assert [int(one.facts.task, 16) for one in done] == [99, *range(10)]
    _put(desk, 10)
    assert len(list((desk.folder / "replies").iterdir())) == 9


def _age(desk: Desk) -> None:
    """Make every reply a minute older."""
    for path in (desk.folder / "replies").glob("*/reply.json"):
        os.utime(path, (0, path.stat().st_mtime - 60))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "task.json").write_text("{"),
        lambda folder: (folder / "task.json").write_text("[]"),
        lambda folder: (folder / "task.json").write_text('{"kind": "train"}'),
        lambda folder: (folder / "arrays.safetensors").write_text("no arrays"),
    ],
)
def test_damaged_task_is_a_sentence(desk: Desk, damage: Callable[[Path], None]) -> None:
    """Those who wait are told, and the worker goes on."""
    name = _put(desk, 0)
    damage(desk.folder / "tasks" / name)
    with pytest.raises(FederationError, match=re.escape(name) + " cannot be read .*: remove it"):
        desk.task(name)


def test_damaged_reply_is_removed(desk: Desk, done: list[Task]) -> None:
    """Asking again does the task again."""
    _ask(desk)
    (reply,) = (desk.folder / "replies").iterdir()
    files.write_text(reply / "reply.json", json.dumps({"facts": {"task": 3}}))
    with pytest.raises(FederationError, match=r"cannot be read (?s:.*): ask again"):
        _ask(desk)
    assert _ask(desk)[0] == TRAINED
    assert len(done) == 2


def test_desk_is_its_owners_alone(desk: Desk) -> None:
    """Adapters can give text away."""
    assert [path.stat().st_mode & 0o777 for path in (desk.folder, desk.folder / "tasks")] == [0o700, 0o700]


def test_every_kind_of_task_has_its_reply() -> None:
    """All but the description, which needs no worker."""
    expected = {
        "train": (TrainTask, Trained),
        "evaluate": (messages.EvaluateTask, Evaluated),
        "query.statistics": (StatisticsTask, Counted),
    }
    assert expected == desks.KINDS
    assert all(issubclass(getattr(errors, name), MoehubError) for name in ("DataError", "TrainingError"))


_SERVE = """
import sys, time
from pathlib import Path
from moehub.federation.node.desk import Desk

with Desk(Path(sys.argv[1])).service.taken(resident=True) as taken:
    print("round 2/3: training law: 7/50", "" if taken else "not taken", file=sys.stderr, flush=True)
    time.sleep(60)
"""


def _resident(desk: Desk, log: Path) -> "subprocess.Popen[bytes]":
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", _SERVE, str(desk.folder)], stderr=file)
    _until(log.read_text)
    return process


@pytest.mark.parametrize("comes_back", [False, True])
def test_worker_that_dies_is_waited_for(
    desk: Desk, tmp_path: Path, done: list[Task], monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """Another takes over within the grace, or the asker hears what the worker said last; it does not train itself."""
    monkeypatch.setattr(desks, "_LOOK", 0.05)
    monkeypatch.setattr(service, "_GRACE", 0.6)
    heard: list[Any] = []

    def ask() -> None:
        try:
            heard.append(_ask(desk)[0])
        except FederationError as error:
            heard.append(str(error))

    first = _resident(desk, tmp_path / "log")
    asker = threading.Thread(target=ask)
    asker.start()
    (name,) = _until(desk.waiting)
    time.sleep(0.3)
    first.kill()
    first.wait()
    if comes_back:
        with desk.service.taken(resident=True) as taken:
            assert taken
            time.sleep(1)
            desk.reply(name, TRAINED, {})
            asker.join(10)
        assert heard == [TRAINED]
    else:
        asker.join(10)
        assert heard[0] == (
            f"the worker (process {first.pid}) ended before the task was done, and none came in its place for 1 s "
            "(round 2/3: training law: 7/50): start it again; it goes on where it was"
        )
    assert done == []


def test_worker_that_died_before_is_not_waited_for(desk: Desk, tmp_path: Path, done: list[Task]) -> None:
    """Where nobody serves the desk, the asker does the task itself."""
    worker_of_old = _resident(desk, tmp_path / "log")
    worker_of_old.kill()
    worker_of_old.wait()
    assert desk.service.last() is not None
    assert _ask(desk)[0] == TRAINED
    assert len(done) == 1


def test_desk_says_who_serves_it(desk: Desk) -> None:
    """One at a time; nobody is left behind where it ends in peace."""
    assert (desk.service.busy(), desk.service.last()) == (False, None)
    with desk.service.taken(resident=True) as first, desk.service.taken(resident=True) as second:
        assert (first, second, desk.service.busy()) == (True, False, True)
        holder = desk.service.last()
        assert holder is not None
        assert (holder.pid, holder.resident) == (os.getpid(), True)
    assert (desk.service.busy(), desk.service.last()) == (False, None)
