"""A whole federation on this machine: Flower's processes on loopback, one run, and nothing left behind.

up ──┬─ SuperLink ── SuperExec ── ServerApp (the run, writes the journal)
     ├─ SuperNode ─ SuperExec ─ ClientApp (one per message) ──┐ one for each contributor
     └─ worker (torch, base, data; one for each accelerator) ◀┘ through its desk
"""

import dataclasses
import os
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from moehub import base as bases
from moehub.errors import FederationError
from moehub.federation.deploy import bundle, endings, guard, pids, services
from moehub.federation.deploy.names import Names, called
from moehub.federation.deploy.place import DESKS, PLACE, clear, held
from moehub.federation.deploy.processes import Processes, tail
from moehub.federation.deploy.progress import Progress
from moehub.federation.form import form_of
from moehub.federation.journal import Ended, Event, GaveUp, Journal, Published
from moehub.federation.node.contributor import to_flower
from moehub.federation.settings import Gathering, NodeConfig

_CONNECTION = "moehub"
_READY = 120.0
"""Seconds that the SuperLink, and the server's first word, may take."""
_POLL = 0.2
_FRAME = str.maketrans("", "", "│╭╮╰╯─")
"""What Flower draws around its errors."""


@dataclass(frozen=True)
class Outcome:
    """What came out of a federation."""

    experts: tuple[Published, ...]
    gave_up: tuple[GaveUp, ...]
    """Domains that ended without an expert."""
    seconds: float
    """From the beginning, or from the resumption."""
    failure: str
    """Empty where all went well."""


@dataclass
class _Told:
    """What the journal has said so far."""

    experts: list[Published] = field(default_factory=list)
    gave_up: list[GaveUp] = field(default_factory=list)
    ended: Ended | None = None

    def hear(self, event: Event) -> None:
        if isinstance(event, Published):
            self.experts.append(event)
        elif isinstance(event, GaveUp):
            self.gave_up.append(event)
        elif isinstance(event, Ended):
            self.ended = event


def check(output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output that holds rounds or experts of an earlier run, where nobody said what is to become of them.

    Raises:
        FederationError: it does.
    """
    found = any(next((output / name).glob("[!.]*"), None) for name in ("rounds", "experts"))
    if found and not resume and not overwrite:
        raise FederationError(
            f"{output} holds a federation already: go on with --resume, begin anew with --overwrite, "
            "or name another --output"
        )


def up(
    gathering: Gathering,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    seconds: float = float("inf"),
) -> Outcome:
    """Run a federation whose nodes are all on this machine, and show it; every process has ended on return.

    After `seconds` it is stopped. Where this is called from the main thread, SIGTERM and SIGHUP end everything too.

    Raises:
        BaseModelError: there is no such base.
        FederationError: see `check`; or a process cannot be kept running, or the server ended before the run did.
    """
    check(output, resume=resume, overwrite=overwrite)
    output = output.absolute()
    base, train, nodes = bases.find(gathering.federation.base), gathering.federation.train, gathering.nodes
    place = output / PLACE
    with endings.leaving_properly(), held(place):
        clear(place, resume=resume)
        names = Names({place / "logs" / f"{_supernode(number)}.log": name for number, name in enumerate(called(nodes))})
        with Processes(place) as processes, Progress(name=names) as progress:
            progress.now("starting the server")
            port = _superlink(processes)
            form = form_of(base, train)
            app = bundle.write(
                place / "bundle",
                gathering.federation,
                form,
                output=output,
                resume=resume,
                overwrite=overwrite,
                expected=len(nodes),
            )
            _rest(processes, nodes, "" if base.revision else str(base.folder), port)
            journal = Journal(output)
            _, start = journal.read()
            _submit(app, place)
            progress.now("waiting for the nodes")
            return _follow(processes, progress, journal, start, seconds)


def _superlink(processes: Processes) -> int:
    """Start the SuperLink and return its port; it takes its time."""
    place, port = processes.folder, services.free_port()
    guard.doors(place / "doors")
    services.connection(place / "home", _CONNECTION, address=f"{services.LOOPBACK}:{port}")
    processes.start(
        services.superlink(_environment(place), host=services.LOOPBACK, port=port, database=place / "state.db")
    )
    return port


def _rest(processes: Processes, nodes: tuple[NodeConfig, ...], base: str, port: int) -> None:
    """Start all else: what starts ServerApps, a worker for each accelerator, and a SuperNode for each contributor.

    Each worker has a desk of its own; the nodes take turns at the desks.
    """
    place, address = processes.folder, f"{services.LOOPBACK}:{port}"
    processes.wait_for(lambda: services.healthy(services.LOOPBACK, port), "the SuperLink's start", seconds=_READY)
    environment = _environment(place)
    processes.start(services.superexec({**environment, guard.PLACE: str(place)}, superlink=address))
    devices = _accelerators() or [None]
    desks = [place / DESKS / str(number) for number in range(len(devices))]
    for number, (desk, device) in enumerate(zip(desks, devices, strict=True)):
        desk.mkdir(parents=True, exist_ok=True)
        processes.start(services.worker(environment, desk=desk, name=f"worker-{number}", device=device))
    for number, (node, own) in enumerate(zip(nodes, services.free_ports(len(nodes)), strict=True)):
        name, desk = _supernode(number), desks[number % len(desks)]
        written = services.node_configuration(
            place / "nodes" / f"{name}.toml", to_flower(dataclasses.replace(node, base=node.base or base), desk)
        )
        processes.start(
            services.supernode(
                environment, name=name, superlink=address, port=own, configuration=written, essential=False
            )
        )


def _environment(place: Path) -> dict[str, str]:
    return services.environment(place / "home", first=place / "doors")


def _accelerators() -> list[str | None]:
    """Return the numbers of the CUDA devices that this process sees."""
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [*(named.split(",") if named else map(str, range(count)))][:count]


def _supernode(number: int) -> str:
    return f"node-{number}"


def _submit(app: Path, place: Path) -> None:
    """Hand the run to the SuperLink.

    Raises:
        FederationError: Flower refuses it.
    """
    done = subprocess.run(  # noqa: S603 (our own command line)
        [services.executable("flwr"), "run", str(app), _CONNECTION],
        env=_environment(place),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = " ".join((done.stderr + done.stdout).translate(_FRAME).split())
        raise FederationError(f"Flower refuses the run: {said}")


def _follow(processes: Processes, progress: Progress, journal: Journal, at: int, seconds: float) -> Outcome:
    """Show the journal until the run has ended.

    Raises:
        FederationError: the server is gone, or has not begun, or `seconds` are over.
    """
    told, began = _Told(), time.monotonic()
    while told.ended is None:
        for fall in processes.watch():
            progress.problem(str(fall))
        gone = _gone(processes.folder)
        entries, at = journal.read(at)
        for entry in entries:
            progress.show(entry)
            told.hear(entry.event)
        waited = time.monotonic() - began
        if told.ended is None and (gone or (gone is None and waited > _READY)):
            raise FederationError(_epitaph(processes, guard.SERVER_APP if gone else "superexec"))
        if waited > seconds:
            raise FederationError(f"the federation did not end within {seconds:.0f} seconds: go on with --resume")
        time.sleep(_POLL)
    return Outcome(tuple(told.experts), tuple(told.gave_up), told.ended.seconds, told.ended.failure)


def _gone(place: Path) -> bool | None:
    """Say whether the server has ended; None where it has not begun yet."""
    if not pids.began(place, guard.SERVER_APP):
        return None
    return guard.SERVER_APP not in pids.recorded(place)


def _epitaph(processes: Processes, name: str) -> str:
    log = processes.log(name)
    what = "ended before the federation did" if name == guard.SERVER_APP else "does not begin"
    return f"the server {what}: mend what its log {log} says, and go on with --resume; it ends with\n{tail(log)}"
