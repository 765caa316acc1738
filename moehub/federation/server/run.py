"""The run: nodes gather, train round after round, and each domain's expert is written.

The server may be killed at any moment: with `resume` it goes on from the last checkpoint, and within a round from the
replies that were accepted. torch is imported only when the last round is done.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout
from flwr.serverapp import Grid

from moehub.console import console
from moehub.errors import FederationError, MoehubError, listed
from moehub.federation import weights
from moehub.federation.aggregation import Aggregate, aggregate
from moehub.federation.aggregation.privacy import spent
from moehub.federation.form import Form
from moehub.federation.journal import Began, Ended, GaveUp, Journal
from moehub.federation.push import EXPERTS
from moehub.federation.server import rounds
from moehub.federation.server.checkpoint import ROUNDS, Checkpoints, kept_when_full
from moehub.federation.server.context import Run
from moehub.federation.server.post import Post
from moehub.federation.server.replies import Replies
from moehub.federation.server.roster import Registered, Registry, Roster
from moehub.federation.server.state import Progress, State
from moehub.federation.settings import FederationConfig

REPLIES = "replies"
_LOCK = ".lock"
_LOCK_SECONDS = 15.0
"""A server that Flower has just ended may still be on its way out."""


def run(
    grid: Grid,
    settings: FederationConfig,
    form: Form,
    output: Path,
    *,
    resume: bool,
    overwrite: bool = False,
    expected: int = 0,
    labels: Mapping[int, str] | None = None,
    registry: Registry | Mapping[int, Registered] | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    aggregation: Callable[..., Aggregate] = aggregate,
) -> list[Path]:
    """Train an expert of every domain with the nodes behind `grid` and return the experts' folders.

    Args:
        grid: Flower's way to the nodes.
        settings: how they train.
        form: what their adapters look like.
        output: the folder that everything is written to.
        resume: whether to go on with the run that is in `output`.
        overwrite: whether experts that are there already may be replaced.
        expected: nodes to wait for at the start; 0: `min_nodes` of every domain.
        labels: names of nodes, by Flower's id; a short form of `registry`.
        registry: names and domains of the nodes that may take part; None: all, as they say they are.
        sleep: as `time.sleep`.
        clock: as `time.monotonic`.
        aggregation: as `moehub.federation.aggregation.aggregate`.

    Raises:
        FederationError: no domain could be trained to the end, the run cannot be resumed, experts are in the way, the
            disk is full, or Flower has ended the run.
    """
    known = registry if labels is None else {node: Registered(name) for node, name in labels.items()}
    post = Post(grid, sleep, clock)
    began = clock()
    journal = Journal(output)
    with _alone(output):
        try:
            with kept_when_full(output):
                experts = _run(post, settings, form, journal, known, expected, aggregation, resume, overwrite)
        except BaseException as error:
            with contextlib.suppress(OSError):
                journal.write(Ended(0, clock() - began, _failure(error)))
            raise
        journal.write(Ended(len(experts), clock() - began))
    return experts


def _run(
    post: Post,
    settings: FederationConfig,
    form: Form,
    journal: Journal,
    registry: Registry | Mapping[int, Registered] | None,
    expected: int,
    aggregation: Callable[..., Aggregate],
    resume: bool,
    overwrite: bool,
) -> list[Path]:
    if settings.noise:
        spent(settings, 1)  # without an accountant this fails now, not after a round
    output = journal.path.parent
    checkpoints, replies = Checkpoints(output), Replies(output / REPLIES)
    name, state = _begin(checkpoints, replies, settings, form, resume=resume, overwrite=overwrite)
    after = min((each.done for each in state.domains.values()), default=0)
    roster = Roster(post, form, settings, journal, registry)
    run = Run(name, settings, form, output, journal, post, roster, replies, checkpoints, aggregation)
    run.tell(Began(name, form.base.reference, settings.aggregation, settings.rounds, after))
    initial = weights.initial(form.shapes(settings.train.rank), settings.train.seed)
    start, first = weights.digest(initial), weights.trained(initial, frozen_a=settings.frozen_a)
    del initial
    if not state.domains:
        state = _joined(run, _gathered(run, expected), first)
    elif left := state.training(settings.rounds) or state.unpublished():
        run.wait(lambda: _enough(run, left, expected))
    while state.training(settings.rounds):
        run.wait(lambda: all(roster.present(domain) for domain in state.training(settings.rounds)))  # noqa: B023 (called at once)
        state = rounds.lap(run, _joined(run, state, first), start)
    return _finish(run, state)


def _begin(
    checkpoints: Checkpoints,
    replies: Replies,
    settings: FederationConfig,
    form: Form,
    *,
    resume: bool,
    overwrite: bool,
) -> tuple[str, State]:
    """Return the run's name and how far it has come."""
    for unfinished in [*(checkpoints.output / ROUNDS).glob(".*"), *(checkpoints.output / EXPERTS).glob(".*")]:
        shutil.rmtree(unfinished, ignore_errors=True)
    found = checkpoints.resume(settings, form) if resume else None
    if resume and found is None:
        console.print(f"there is no run in {checkpoints.output} to go on with: beginning anew", markup=False)
    _check_experts(checkpoints.output, State() if found is None else found[1], overwrite=overwrite)
    if found is not None:
        return found[0], found[1].revived()
    replies.retain(())
    return checkpoints.begin(settings, form), State()


def _check_experts(output: Path, state: State, *, overwrite: bool) -> None:
    for folder in sorted((output / EXPERTS).glob("[!.]*")):
        progress = state.domains.get(folder.name, Progress())
        if not (progress.version or progress.published or overwrite):
            raise FederationError(f"{folder} is there already: choose another --output, or replace it with --overwrite")


def _gathered(run: Run, expected: int) -> State:
    """Return the state of a run that begins: every domain with enough nodes is trained.

    Raises:
        FederationError: there is none.
    """
    least = run.settings.min_nodes

    def wanted() -> list[str]:
        return sorted({*run.settings.domains, *run.roster.domains()})

    run.wait(lambda: _enough(run, wanted(), expected))
    short = {
        domain: f"{present} node(s) came within {run.settings.wait:g} s, expected {least}: start more, or wait longer"
        for domain in wanted()
        if (present := len(run.roster.present(domain))) < least
    }
    if len(short) == len(wanted()):
        refused = [f"a node was refused: {reason}" for reason in run.roster.refused.values()]
        raise FederationError(
            listed(
                f"no domain has the nodes that it needs: {len(run.roster.connected)} node(s) connected within "
                f"{run.settings.wait:g} s; start nodes with `moehub node`, or raise wait",
                [*(f"{domain}: {reason}" for domain, reason in short.items()), *refused],
            )
        )
    for domain, reason in short.items():
        run.tell(GaveUp(0, domain, reason))
    return State(domains={domain: Progress(gave_up=reason) for domain, reason in short.items()})


def _enough(run: Run, domains: list[str], expected: int) -> bool:
    """Return whether the nodes are there that were `expected`, or else the fewest that each domain needs."""
    if expected:
        return run.roster.heard() >= expected
    return bool(domains) and all(len(run.roster.present(each)) >= run.settings.min_nodes for each in domains)


def _joined(run: Run, state: State, first: weights.Weights) -> State:
    """Return the state with the domains whose first nodes have come."""
    new = [
        domain
        for domain in run.roster.domains()
        if domain not in state.domains and len(run.roster.present(domain)) >= run.settings.min_nodes
    ]
    return replace(
        state,
        domains={**state.domains, **dict.fromkeys(new, Progress())},
        weights={**state.weights, **dict.fromkeys(new, first)},
    )


def _finish(run: Run, state: State) -> list[Path]:
    """Write the experts that are not written yet, and return the folders of all.

    Raises:
        FederationError: no domain has one.
    """
    if state.unpublished():
        from moehub.federation.server import publication

        initial = weights.initial(run.form.shapes(run.settings.train.rank), run.settings.train.seed)
        state = publication.publish(run, state, initial)
    experts = [run.output / EXPERTS / domain for domain, each in sorted(state.domains.items()) if each.published]
    if not experts:
        reasons = [f"{domain}: {reason}" for domain, reason in state.named().items()]
        raise FederationError(listed("no domain was trained to the end:", reasons))
    run.replies.retain(())
    return experts


@contextlib.contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Hold the output folder: two servers at once would spoil each other's rounds.

    Raises:
        FederationError: another one holds it.
    """
    output.mkdir(parents=True, exist_ok=True)
    lock = FileLock(output / _LOCK)
    try:
        lock.acquire(timeout=_LOCK_SECONDS)
    except Timeout as error:
        raise FederationError(
            f"another server works in {output}: end it with `moehub federate stop`, or choose another --output"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _failure(error: BaseException) -> str:
    if isinstance(error, MoehubError):
        return str(error)
    return str(error) or "it was stopped" if isinstance(error, Exception) else "it was stopped"
