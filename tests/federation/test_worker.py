import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moehub.errors import DataError, FederationError
from moehub.federation import messages, weights
from moehub.federation.node import desk as desks
from moehub.federation.node import work, worker
from moehub.federation.node.desk import Desk, Task
from moehub.federation.node.memory import Memory
from moehub.federation.node.service import Holder
from tests.federation.tasks import contributor, ignore_peft, small, start, training

pytestmark = ignore_peft


def _until(found: Callable[[], Any], seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return value


def _start(desk: Desk, log: Path, *options: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "moehub.federation.node.worker", str(desk.folder), *options]
    with log.open("a") as file:
        return subprocess.Popen(command, stderr=file)


def _put(desk: Desk, base: Path, folder: Path, steps: int, **settings: Any) -> tuple[str, Task]:
    config = small(**settings)
    sent = weights.trained(start(base, config), frozen_a=True)
    asked = training(base, config, steps=steps, round=2, task=f"{steps:064x}")
    task = Task(messages.TRAIN, asked, sent, contributor(folder, base))
    name = desks._name(task)
    desk.put(name, task)
    return name, task


def test_killed_training_goes_on_as_if_undisturbed(tmp_path: Path, base_folder: Path) -> None:
    """Killed, then terminated, at two places of one task: a third worker gives the same weights to the bit."""
    desk, log = Desk(tmp_path / "desk"), tmp_path / "log"
    name, task = _put(desk, base_folder, tmp_path, 60, save_every=5, dropout=0.1)
    reached = 0
    for ending in (signal.SIGKILL, signal.SIGTERM):
        with _start(desk, log) as process:
            reached = _until(functools.partial(_checkpoint, desk, name, after=reached))
            process.send_signal(ending)
        assert process.returncode == -ending
        assert 0 < reached < 60
        assert desk.waiting() == [name]
    with _start(desk, log) as process:
        facts, arrays = _until(lambda: desk.answer(name, messages.Trained))
        process.terminate()
    whole, undisturbed = work.perform(
        task.kind, task.facts, task.arrays, task.contributor, tmp_path / "undisturbed", Memory()
    )
    assert [each for each in undisturbed if not np.array_equal(arrays[each], undisturbed[each])] == []
    assert (facts.tokens, facts.loss) == (whole.tokens, whole.loss)
    assert "round 2/3: training law on " in log.read_text()
    assert not desk.workspace(name).exists()


def _checkpoint(desk: Desk, name: str, *, after: int) -> int:
    whole = [int(path.parent.name.rpartition("-")[2]) for path in desk.workspace(name).glob("checkpoint-*/moehub.json")]
    return max((step for step in whole if step > after), default=0)


def test_worker_serves_asks_and_ends_when_idle(
    tmp_path: Path, base_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In the order in which they came, and what went wrong with one does not end it."""
    desk = Desk(tmp_path / "desk")
    first, _ = _put(desk, base_folder, tmp_path, 1)
    second, _ = _put(desk, base_folder, tmp_path, 2, rank=1)
    (desk.folder / "tasks" / first / "task.json").write_text("{}")
    worker.serve(desk, idle=0.5)
    with pytest.raises(FederationError, match="cannot be read"):
        desk.answer(first, messages.Trained)
    facts, arrays = desk.answer(second, messages.Trained) or (None, {})
    assert facts is not None
    assert (facts.rank, len(arrays)) == (1, 4)
    assert desk.waiting() == []
    assert desk.service.last() is None
    assert f"serving {desk.folder} on cpu" in capfd.readouterr().err.replace("\n", " ").replace("  ", " ")


def test_worker_says_what_it_trains_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's description repeats it, without asking torch."""
    desk = Desk(tmp_path / "desk")
    seen: list[Holder | None] = []

    def waiting(_: Desk) -> list[str]:
        seen.append(desk.service.last())
        return []

    monkeypatch.setattr(Desk, "waiting", waiting)
    worker.serve(desk, idle=0.01)
    assert seen[0] is not None
    assert (seen[0].pid, seen[0].resident, seen[0].device) == (os.getpid(), True, "cpu")


def test_second_worker_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A service manager may start the new one before the old one is gone; it says so once."""
    monkeypatch.setattr(worker, "_LOOK", 0.02)
    desk = Desk(tmp_path / "desk")
    second = threading.Thread(target=worker.serve, args=(desk,), kwargs={"idle": 0})
    with desk.service.taken(resident=True):
        second.start()
        time.sleep(0.3)
        assert second.is_alive()
    second.join(10)
    assert not second.is_alive()
    said = " ".join(capfd.readouterr().err.split())
    assert said.count(f"another process serves {desk.folder}: waiting for it to end") == 1


def test_unforeseen_failure_is_told_without_its_text(
    tmp_path: Path, base_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The text may hold anything: it stays in the log. What was loaded is let go."""
    desk, memory = Desk(tmp_path / "desk"), Memory()
    name, task = _put(desk, base_folder, tmp_path, 1)
    loaded = memory.base(task.facts, task.contributor, small())

    def fail(*_: object) -> None:
        raise RuntimeError("the text says: Mr Smith")

    monkeypatch.setattr(work, "perform", fail)
    worker.work_off(desk, name, memory)
    with pytest.raises(FederationError) as caught:
        desk.answer(name, messages.Trained)
    assert str(caught.value) == "the task failed (RuntimeError): the worker's log says why"
    assert "the text says: Mr Smith" in capfd.readouterr().err
    assert memory.base(task.facts, task.contributor, small()) is not loaded


def test_failure_keeps_its_kind(tmp_path: Path, base_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And the log has the sentence too."""
    desk = Desk(tmp_path / "desk")
    name, task = _put(desk, base_folder, tmp_path, 1)
    task.contributor.data[0].write_text(" ")
    worker.work_off(desk, name, Memory())
    with pytest.raises(DataError, match="is empty"):
        desk.answer(name, messages.Trained)
    assert "is empty" in capfd.readouterr().err


def test_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """However that ended; nothing is left running."""
    with (
        subprocess.Popen(["sleep", "60"]) as parent,  # noqa: S607 (whichever sleep this machine has)
        _start(Desk(tmp_path / "desk"), tmp_path / "log", "--parent", str(parent.pid)) as process,
    ):
        _until((tmp_path / "desk" / "worker.json").exists)
        assert process.poll() is None
        parent.kill()
        assert process.wait(timeout=20) == 0


def test_worker_ends_where_its_parent_is_gone_already() -> None:
    """It may have died before the worker began to look."""
    with subprocess.Popen(["true"]) as parent:  # noqa: S607 (whichever true this machine has)
        parent.wait()
    ended: list[int] = []
    worker._end_with(parent.pid, ended.append)
    assert ended == [0]


def test_desk_that_cannot_be_one_is_a_sentence(tmp_path: Path) -> None:
    """A file stands there."""
    (tmp_path / "desk").write_text("")
    with pytest.raises(SystemExit, match=r"the desk .* cannot be served"):
        worker.main([str(tmp_path / "desk")])
