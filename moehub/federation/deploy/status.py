"""How a federation stands: its nodes, its run, and the rounds so far, read from its folder."""

from dataclasses import dataclass
from pathlib import Path

from moehub.federation.deploy import pids
from moehub.federation.deploy.control import Control
from moehub.federation.deploy.registry import Registry
from moehub.federation.deploy.server_folder import Job, ServerFolder
from moehub.federation.deploy.wording import line
from moehub.federation.journal import (
    Aggregated,
    Began,
    Ended,
    Entry,
    GaveUp,
    Journal,
    Missing,
    Published,
    Refused,
    RoundBegan,
)

_SUPERLINK = "superlink"
_PROBLEMS = 5


@dataclass(frozen=True)
class Node:
    """A node that the server knows."""

    id: int
    name: str
    """Empty where it was not registered."""
    domain: str
    """Empty where it was not registered for one."""
    state: str
    """As Flower says: registered, online or offline."""


@dataclass(frozen=True)
class Round:
    """What a domain did in one round."""

    domain: str
    round: int
    nodes: int
    loss: float
    bytes: int
    """Of arrays, both ways."""
    seconds: float


@dataclass(frozen=True)
class Run:
    """A run, as its journal tells it."""

    output: str
    base: str
    aggregation: str
    rounds: int
    """That it is to have."""
    state: str
    done: tuple[Round, ...]
    domains: dict[str, str]
    """Domain → how far it is."""
    problems: tuple[str, ...]
    """The latest."""


@dataclass(frozen=True)
class Status:
    """How a federation stands."""

    running: bool
    address: str
    """Empty where the federation runs on one machine alone."""
    nodes: tuple[Node, ...]
    run: Run | None


def read(path: Path) -> Status:
    """Return how the federation in a server's folder, or in the output of `moehub federate up`, stands.

    Raises:
        FederationError: there is none.
    """
    folder = ServerFolder(path)
    running = _SUPERLINK in pids.recorded(folder.place)
    if not folder.served and Journal(path).path.exists():
        state = "running" if running else "ended"
        return Status(running, "", (), _run(Journal(path).read()[0], str(path), state))
    job = folder.job()
    return Status(running, folder.serving().address, _nodes(folder, running=running), _of(job, running=running))


def _of(job: Job | None, *, running: bool) -> Run | None:
    if job is None:
        return None
    entries, _ = Journal(Path(job.output)).read(job.since)
    return _run(entries, job.output, job.outcome or ("running" if running else "interrupted: the server does not run"))


def _nodes(folder: ServerFolder, *, running: bool) -> tuple[Node, ...]:
    registered = Registry(folder.registry, folder.keys).nodes()
    states = Control(folder.place / "home").nodes() if running else dict.fromkeys(registered, "registered")
    found = [
        Node(
            id=node,
            name=registered[node].name if node in registered else "",
            domain=registered[node].domain if node in registered else "",
            state=state,
        )
        for node, state in states.items()
    ]
    return tuple(sorted(found, key=lambda node: (node.domain, node.name, node.id)))


def _run(entries: list[Entry], output: str, state: str) -> Run:
    events = [entry.event for entry in entries]
    began = next((event for event in reversed(events) if isinstance(event, Began)), None)
    ended = next((event for event in reversed(events) if isinstance(event, Ended)), None)
    if ended is not None and ended.failure and state == "ended":
        state = f"failed: {ended.failure}"
    done = {
        (event.domain, event.round): Round(
            event.domain, event.round, event.nodes, event.loss, event.sent + event.received, event.seconds
        )
        for event in events
        if isinstance(event, Aggregated)
    }
    problems = [line(event, str) for event in events if isinstance(event, Refused | Missing | GaveUp)]
    return Run(
        output=output,
        base=began.base if began is not None else "",
        aggregation=began.aggregation if began is not None else "",
        rounds=began.rounds if began is not None else 0,
        state=state if began is not None or state != "running" else "waiting to begin",
        done=tuple(done[key] for key in sorted(done)),
        domains=_domains(entries),
        problems=tuple(problems[-_PROBLEMS:]),
    )


def _domains(entries: list[Entry]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        match entry.event:
            case RoundBegan(round=number, domains=domains):
                found |= {domain: f"training round {number} on {nodes} node(s)" for domain, nodes in domains.items()}
            case Aggregated(domain=domain, round=number):
                found[domain] = f"round {number} is done"
            case GaveUp(domain=domain):
                found[domain] = "gave up"
            case Published(domain=domain):
                found[domain] = "finished"
    return dict(sorted(found.items()))
