"""Looks after the run that a server does: shows it, sees it end, and hands it over again where its process was lost."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path

from moehub.errors import FederationError
from moehub.federation.deploy import guard, pids
from moehub.federation.deploy.control import Control
from moehub.federation.deploy.server_folder import Job, ServerFolder
from moehub.federation.deploy.wording import line
from moehub.federation.journal import Aggregated, Began, Ended, Journal

FINISHED, STOPPED = "finished", "stopped"
_TRIES = 5
"""How often in a row a run is handed over again without a round in between."""
_GRACE = 5.0
"""Seconds between the death of a run's process and the judgement that it left nothing more to read."""
_BEGIN = 120.0
"""Seconds that a run's process may take to begin."""


class Overseer:
    """Follows one run at a time."""

    def __init__(
        self,
        folder: ServerFolder,
        control: Control,
        say: Callable[[str], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.control = control
        self.say = say
        self.clock = clock
        self._job: Job | None = None
        self._at = 0
        self._tries = 0
        self._gone: float | None = None
        self._handed = 0.0

    def take_up(self) -> None:
        """Go on with the run that was in progress when the server ended."""
        job = self.folder.job()
        if job is None:
            return
        if job.outcome:
            self.say(f"run {job.number}: {job.outcome}; hand over the next one with `moehub federate run`")
            return
        self._follow(job)
        _, self._at = Journal(Path(job.output)).read(job.since)
        self.say(f"going on with run {job.number}, which was in progress")
        self._again(job)

    def look(self) -> None:
        """Show what has happened, and do what is to be done about it."""
        job = self.folder.job()
        if job is None or job.outcome:
            self._job = None
            return
        if self._job is None or self._job.number != job.number:
            self._follow(job)
        if not self._heard(job):
            self._keep(job)

    def _follow(self, job: Job) -> None:
        self._job, self._at, self._tries, self._gone, self._handed = job, job.since, 0, None, self.clock()

    def _heard(self, job: Job) -> bool:
        """Show the journal's news, and return whether the run has ended."""
        entries, self._at = Journal(Path(job.output)).read(self._at)
        for entry in entries:
            if text := line(entry.event, str):
                self.say(text)
            if isinstance(entry.event, Began | Aggregated):
                self._gone = None
            if isinstance(entry.event, Aggregated):
                self._tries = 0
            if isinstance(entry.event, Ended):
                self.folder.close(job, f"failed: {entry.event.failure}" if entry.event.failure else FINISHED)
                self._job = None
                return True
        return False

    def _keep(self, job: Job) -> None:
        """Hand the run over again where its process is lost."""
        if guard.SERVER_APP in pids.recorded(self.folder.place):
            self._gone = None
            return
        if not pids.began(self.folder.place, guard.SERVER_APP):
            if self.clock() - self._handed > _BEGIN:
                self._retry(job, "has not begun")
            return
        self._gone = self._gone if self._gone is not None else self.clock()
        if self.clock() - self._gone > _GRACE:
            self._retry(job, "was lost")

    def _retry(self, job: Job, what: str) -> None:
        self._tries += 1
        if self._tries > _TRIES:
            self.folder.close(job, f"failed: its process {what} {self._tries} times, see `moehub federate logs`")
            self.say(f"run {job.number} is given up: its process {what} {self._tries} times in a row")
            return
        self.say(f"the process of run {job.number} {what}: the run is handed over again")
        try:
            self._again(job)
        except FederationError as error:
            self.say(str(error))

    def _again(self, job: Job) -> None:
        self._gone, self._handed = None, self.clock()
        self.control.stop(job.flower)
        with self.folder.locked():
            current = self.folder.job()
            if current is None or current.number != job.number or current.outcome:
                return
            pids.forget(self.folder.place, guard.SERVER_APP)
            flower = self.control.submit(self.folder.bundle, resume=True, overwrite=False)
            self.folder.assign(dataclasses.replace(current, flower=flower))
