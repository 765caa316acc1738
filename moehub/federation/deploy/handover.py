"""Handing a run to a server, and taking it back."""

import time
from collections.abc import Callable
from pathlib import Path

import psutil

from moehub import base as bases
from moehub.errors import FederationError
from moehub.federation.deploy import bundle, guard, launch, pids
from moehub.federation.deploy.control import Control
from moehub.federation.deploy.overseer import STOPPED
from moehub.federation.deploy.server import SERVER
from moehub.federation.deploy.server_folder import Job, ServerFolder
from moehub.federation.form import form_of
from moehub.federation.journal import Entry, Journal
from moehub.federation.settings import FederationConfig

_POLL = 0.5
_ENDING = 60.0
"""Seconds that a federation may take to end its processes."""


def hand_over(
    folder: ServerFolder,
    control: Control,
    settings: FederationConfig,
    *,
    output: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    expected: int = 0,
) -> Job:
    """Let the server do a run and return it; it begins with the nodes that are there, and waits for `expected`.

    With `resume` it goes on where the last run ended, in the folder of that.

    Raises:
        BaseModelError: there is no such base.
        FederationError: another run is in progress, the output holds one, or the server does not run.
    """
    form = form_of(bases.find(settings.base), settings.train)
    with folder.locked():
        serving, last = folder.serving(), folder.job()
        if last is not None and not last.outcome:
            raise FederationError(
                f"run {last.number} is in progress: wait for its end, or stop it with `moehub federate stop`"
            )
        number = last.number + 1 if last is not None else 1
        if resume and last is None:
            raise FederationError(f"{folder.path} holds no run that could be resumed: leave out --resume")
        if output is None:
            output = Path(last.output) if resume and last is not None else folder.run(number)
        launch.check(output, resume=resume, overwrite=overwrite)
        app = bundle.write(
            folder.bundle,
            settings,
            form,
            output=output,
            resume=resume,
            overwrite=overwrite,
            expected=expected,
            registry=None if serving.insecure else folder.registry,
        )
        _, since = Journal(output).read()
        pids.forget(folder.place, guard.SERVER_APP)
        job = Job(number, control.submit(app), str(output.absolute()), since)
        folder.assign(job)
    return job


def take_back(folder: ServerFolder, control: Control) -> Job:
    """Stop the run that is in progress and return it; its finished rounds are kept.

    Raises:
        FederationError: there is none.
    """
    job = folder.job()
    if job is None or job.outcome:
        raise FederationError(f"{folder.path} has no run in progress: see `moehub federate status`")
    folder.close(job, STOPPED)
    try:
        control.stop(job.flower)
    except FederationError:
        # A server that is down has no run in progress, and will not take this one up again.
        if pids.recorded(folder.place):
            raise
    return job


def end(folder: ServerFolder) -> None:
    """End the command that runs a federation in this folder: a server, or `moehub federate up`.

    Raises:
        FederationError: none does, or it does not end.
    """
    running = pids.recorded(folder.place)
    superlink = running.get("superlink")
    owner = running.get(SERVER) or (superlink.parent() if superlink is not None else None)
    if owner is None or owner.pid <= 1:
        raise FederationError(f"no federation runs in {folder.path}: name its folder with --state")
    owner.terminate()
    until = time.monotonic() + _ENDING
    while _lives(owner):
        if time.monotonic() > until:
            raise FederationError(f"process {owner.pid} does not end within {_ENDING:.0f} s: end it by its id")
        time.sleep(_POLL)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def follow(folder: ServerFolder, job: Job, show: Callable[[Entry], None]) -> str:
    """Show a run's journal until it ends, and return how it did; the run goes on where this is interrupted."""
    journal, at = Journal(Path(job.output)), job.since
    while True:
        current = folder.job()
        entries, at = journal.read(at)
        for entry in entries:
            show(entry)
        if current is None or current.number != job.number:
            return "superseded by another"
        if current.outcome:
            return current.outcome
        time.sleep(_POLL)
