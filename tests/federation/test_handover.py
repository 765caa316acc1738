import dataclasses
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from moehub.errors import FederationError
from moehub.federation.deploy import handover, pids
from moehub.federation.deploy.overseer import FINISHED, STOPPED
from moehub.federation.deploy.server_folder import Job, ServerFolder
from moehub.federation.journal import Ended, Journal
from moehub.federation.settings import read_federation
from tests.federation.served import Flower


def test_one_run_at_a_time(folder: ServerFolder, settings: Path) -> None:
    """Two would share the nodes; the next one has a folder of its own."""
    flower, wanted = Flower(), read_federation(settings)
    first = handover.hand_over(folder, flower, wanted, expected=3)
    assert (first.number, first.flower, first.output) == (1, 101, str(folder.path / "runs" / "0001"))
    with pytest.raises(FederationError, match="run 1 is in progress"):
        handover.hand_over(folder, flower, wanted)
    folder.close(first, FINISHED)
    assert handover.hand_over(folder, flower, wanted).output == str(folder.path / "runs" / "0002")
    assert len(flower.submitted) == 2


def test_a_run_is_handed_over_with_the_registry(folder: ServerFolder, settings: Path) -> None:
    """So that a node trains for the domain that it was registered for."""
    handover.hand_over(folder, Flower(), read_federation(settings), expected=3)
    values = tomllib.loads((folder.bundle / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert (values["registry"], values["expected"], values["resume"]) == (str(folder.registry), 3, False)
    folder.serve(dataclasses.replace(folder.serving(), insecure=True))
    folder.close(Job(1, 1, "", 0), FINISHED)
    handover.hand_over(folder, Flower(), read_federation(settings))
    values = tomllib.loads((folder.bundle / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]
    assert values["registry"] == ""


def test_a_run_that_flower_refuses_was_never_handed_over(folder: ServerFolder, settings: Path) -> None:
    """The next one is not in its way."""
    with pytest.raises(FederationError, match="does not run"):
        handover.hand_over(folder, Flower(down=True), read_federation(settings))
    assert folder.job() is None
    assert handover.hand_over(folder, Flower(), read_federation(settings)).number == 1


def test_a_resumed_run_goes_on_where_the_last_one_wrote(folder: ServerFolder, settings: Path) -> None:
    """And what the last one said is not taken for its own."""
    flower, wanted = Flower(), read_federation(settings)
    with pytest.raises(FederationError, match="holds no run that could be resumed"):
        handover.hand_over(folder, flower, wanted, resume=True)
    first = handover.hand_over(folder, flower, wanted)
    Journal(Path(first.output)).write(Ended(0, 1.0, "the disk is full"))
    folder.close(first, "failed: the disk is full")
    second = handover.hand_over(folder, flower, wanted, resume=True)
    assert (second.number, second.output) == (2, first.output)
    assert second.since == Journal(Path(first.output)).path.stat().st_size


def test_a_run_is_taken_back(folder: ServerFolder, settings: Path) -> None:
    """It counts as over at once, so that no restart takes it up again."""
    flower = Flower()
    with pytest.raises(FederationError, match="has no run in progress"):
        handover.take_back(folder, flower)
    job = handover.hand_over(folder, flower, read_federation(settings))
    handover.take_back(folder, flower)
    assert (folder.job(), flower.stopped) == (dataclasses.replace(job, outcome=STOPPED), [job.flower])


def test_a_run_is_taken_back_from_a_server_that_is_down(folder: ServerFolder, settings: Path) -> None:
    """Its next start leaves it alone."""
    job = handover.hand_over(folder, Flower(), read_federation(settings))
    handover.take_back(folder, Flower(down=True))
    assert folder.job() == dataclasses.replace(job, outcome=STOPPED)


def test_a_federation_of_one_machine_is_ended_by_its_command(tmp_path: Path) -> None:
    """The one that started the SuperLink; its own processes go with it."""
    folder = ServerFolder(tmp_path)
    with pytest.raises(FederationError, match="no federation runs in"):
        handover.end(folder)
    child = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    with subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        superlink = int(command.stdout.readline())
        pids.record(folder.place, "superlink", superlink)
        handover.end(folder)
        assert command.wait(5) == -signal.SIGTERM
    os.kill(superlink, signal.SIGTERM)
