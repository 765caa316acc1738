import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from moehub.federation.deploy import (
    guard,
    handover,
    pids,
)
from moehub.federation.deploy.overseer import FINISHED, STOPPED, Overseer
from moehub.federation.deploy.server_folder import ServerFolder
from moehub.federation.journal import Ended, Journal
from moehub.federation.settings import read_federation
from tests.federation.served import BEGAN, DONE, Flower


@dataclass
class Watch:
    """An overseer, its clock, and what it said."""

    folder: ServerFolder
    flower: Flower
    overseer: Overseer
    said: list[str]
    now: list[float]

    def alive(self, *, lives: bool = True) -> None:
        """Let the run's process live, or have lived."""
        if lives:
            pids.record(self.folder.place, guard.SERVER_APP, os.getpid())
        else:
            (self.folder.place / "pids" / "serverapp.json").write_text(json.dumps({"pid": 1, "created": 0}))

    def after(self, seconds: float) -> None:
        self.now[0] += seconds
        self.overseer.look()

    @property
    def journal(self) -> Journal:
        job = self.folder.job()
        assert job is not None
        return Journal(Path(job.output))

    @property
    def outcome(self) -> str | None:
        job = self.folder.job()
        return None if job is None else job.outcome


@pytest.fixture
def watch(folder: ServerFolder, settings: Path) -> Watch:
    """A run that was handed over, whose process lives."""
    said: list[str] = []
    flower, now = Flower(), [0.0]
    handover.hand_over(folder, flower, read_federation(settings))
    found = Watch(folder, flower, Overseer(folder, flower, said.append, clock=lambda: now[0]), said, now)
    found.alive()
    return found


def test_a_run_is_shown_until_it_ends(watch: Watch) -> None:
    """And then it is over."""
    watch.journal.write(BEGAN)
    watch.after(1)
    watch.journal.write(DONE)
    watch.journal.write(Ended(1, 9.0))
    watch.after(1)
    watch.after(1)
    assert watch.outcome == FINISHED
    assert [each.partition(":")[0] for each in watch.said] == [
        "federation on org/base",
        "round 1, law",
        "1 expert in 9.0 s",
    ]
    assert len(watch.flower.submitted) == 1


def test_a_run_that_failed_is_not_tried_again(watch: Watch) -> None:
    """It said why, and would fail again."""
    watch.journal.write(Ended(0, 9.0, "no domain was trained to the end"))
    watch.alive(lives=False)
    watch.after(100)
    watch.after(100)
    assert watch.outcome == "failed: no domain was trained to the end"
    assert len(watch.flower.submitted) == 1


def test_a_run_whose_process_is_lost_goes_on(watch: Watch) -> None:
    """After a moment in which it may still have said how it ended; Flower's old run is stopped first."""
    watch.journal.write(BEGAN)
    watch.alive(lives=False)
    watch.after(1)
    watch.after(1)
    assert len(watch.flower.submitted) == 1
    watch.after(10)
    assert watch.flower.stopped == [101]
    assert watch.flower.submitted[1:] == [{"resume": True, "overwrite": False}]
    job = watch.folder.job()
    assert job is not None
    assert (job.number, job.flower, job.outcome) == (1, 102, "")


def test_a_process_that_takes_its_time_is_waited_for(watch: Watch) -> None:
    """It has two minutes to begin, and then another one has."""
    pids.forget(watch.folder.place, guard.SERVER_APP)
    watch.after(1)
    watch.after(100)
    assert len(watch.flower.submitted) == 1
    watch.after(100)
    assert len(watch.flower.submitted) == 2


def test_a_run_that_keeps_being_lost_is_given_up(watch: Watch) -> None:
    """Unless it gets a round further in between."""
    for number in range(1, 15):
        if number == 4:
            watch.journal.write(DONE)
        watch.alive(lives=False)
        watch.after(1)
        watch.after(10)
    assert len(watch.flower.submitted) == 1 + 3 + 5
    assert watch.outcome is not None
    assert watch.outcome.startswith("failed: its process was lost")


def test_a_restart_takes_up_the_run_that_was_in_progress(watch: Watch) -> None:
    """Whatever its process wrote when it was ended with the server; that was no end of its own."""
    watch.journal.write(BEGAN)
    watch.journal.write(Ended(0, 5.0, "it was stopped"))
    said: list[str] = []
    again = Overseer(watch.folder, watch.flower, said.append, clock=lambda: watch.now[0])
    again.take_up()
    again.look()
    assert watch.flower.submitted[1:] == [{"resume": True, "overwrite": False}]
    assert (watch.outcome, said) == ("", ["going on with run 1, which was in progress"])


@pytest.mark.parametrize("outcome", [FINISHED, STOPPED, "failed: why"])
def test_a_restart_leaves_a_run_that_is_over_alone(watch: Watch, outcome: str) -> None:
    """A person decides what comes next."""
    job = watch.folder.job()
    assert job is not None
    watch.folder.close(job, outcome)
    watch.overseer.take_up()
    watch.after(1000)
    assert len(watch.flower.submitted) == 1
    assert outcome in watch.said[0]


def test_an_outcome_is_written_once(watch: Watch) -> None:
    """Stopped is stopped, even if its process then says that it failed."""
    job = watch.folder.job()
    assert job is not None
    watch.folder.close(job, STOPPED)
    watch.folder.close(job, "failed: it was stopped")
    assert watch.outcome == STOPPED
    watch.folder.close(dataclasses.replace(job, number=7), FINISHED)
    assert watch.outcome == STOPPED
