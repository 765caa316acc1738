"""One lap: every domain's nodes train its next round, and what they send becomes its next adapter.

A domain whose nodes did not answer in sufficient number tries the same round again in the next lap, beside the next
round of the others; what did come is kept and not asked for twice. Domains are never mixed.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from moehub.errors import FederationError
from moehub.federation import messages, weights
from moehub.federation.aggregation import Aggregate, Update, norms
from moehub.federation.aggregation.privacy import spent
from moehub.federation.journal import Aggregated, Event, GaveUp, Missing, Refused, Replied, RoundBegan
from moehub.federation.messages import Trained, TrainTask
from moehub.federation.server import validation
from moehub.federation.server.context import Run, named
from moehub.federation.server.post import Answer, Letter
from moehub.federation.server.replies import Sender, Stored
from moehub.federation.server.roster import Member
from moehub.federation.server.state import Participant, Progress, State
from moehub.federation.weights import Weights

OUTLIER = 10.0
"""A change of a norm this many times the median of its round is refused."""
_CROWD = 3
"""With fewer replies a median says nothing."""


@dataclass(frozen=True)
class Turn:
    """One domain's part in a lap."""

    domain: str
    progress: Progress
    start: Weights
    """What is sent."""
    digest: str
    """Of it."""
    tasks: dict[int, tuple[Member, TrainTask]] = field(default_factory=dict)
    """Flower's id of a node → the node, and what it is asked now."""
    answered: dict[str, Stored] = field(default_factory=dict)
    """Key of a node → its accepted reply."""
    refused: set[str] = field(default_factory=set)
    """Keys of the nodes whose replies were refused."""

    @property
    def round(self) -> int:
        """The round, from 1."""
        return self.progress.done + 1

    @property
    def asked(self) -> int:
        """Nodes that were asked, in this lap or before it."""
        return len({member.key for member, _ in self.tasks.values()} | self.answered.keys())


def lap(run: Run, state: State, start: str) -> State:
    """Train one round of every domain that has rounds left, write the checkpoint, and return it.

    `start` is the digest of the adapter that the run began with.
    """
    began = run.post.clock()
    turns = {domain: _turn(run, state, domain, start) for domain in state.training(run.settings.rounds)}
    for number in sorted({turn.round for turn in turns.values()}):
        run.tell(RoundBegan(number, {turn.domain: turn.asked for turn in turns.values() if turn.round == number}))
    letters = (letter for turn in turns.values() for letter in _letters(turn))
    for answer in run.post.ask(letters, run.settings.deadline, idle=run.roster.look):
        _receive(run, turns[answer.letter.task.domain], answer)
    outcomes = {domain: _conclude(run, turn) for domain, turn in turns.items()}
    seconds = run.post.clock() - began
    after = State(
        state.lap + 1,
        state.seconds + seconds,
        {**state.domains, **{domain: progress for domain, (progress, _, _) in outcomes.items()}},
        {**state.weights, **{domain: found for domain, (_, found, _) in outcomes.items()}},
    )
    run.checkpoints.save(after)
    for *_, event in outcomes.values():
        if event is not None:
            run.tell(replace(event, seconds=seconds) if isinstance(event, Aggregated) else event)
    run.replies.retain(
        stored
        for domain, turn in turns.items()
        if after.domains[domain].done < turn.round
        for stored in turn.answered.values()
    )
    return after


def _turn(run: Run, state: State, domain: str, start: str) -> Turn:
    """Return a domain's turn, with the replies that were accepted before."""
    values = state.weights[domain]
    turn = Turn(domain, state.domains[domain], values, weights.digest(values))

    def task(key: str) -> TrainTask:
        settings = run.settings
        return named(
            TrainTask(
                **run.asked(domain),
                round=turn.round,
                rounds=settings.rounds,
                steps=settings.steps,
                frozen_a=settings.frozen_a,
                start=start,
                proximal=settings.proximal,
            ),
            node=key,
            weights=turn.digest,
        )

    for stored in run.replies.stored():
        if stored.task == task(stored.sender.key).task:
            turn.answered[stored.sender.key] = stored
    for member in run.roster.present(domain):
        if member.key not in turn.answered and member.key not in turn.progress.left_out:
            turn.tasks[member.node] = member, task(member.key)
    return turn


def _letters(turn: Turn) -> Iterator[Letter]:
    arrays = messages.packed(turn.start) if turn.tasks else None
    for node, (_, task) in turn.tasks.items():
        yield Letter(node, messages.TRAIN, task, arrays)


def _receive(run: Run, turn: Turn, answer: Answer) -> None:
    """Keep a reply, or say why there is none to keep."""
    member, task = turn.tasks[answer.letter.node]
    if answer.content is None:
        run.tell(Missing(turn.round, member.label, turn.domain, answer.reason))
        return
    try:
        rank = member.said.rank or run.settings.train.rank
        said, found = validation.trained(answer.content, task, run.form, run.settings, rank=rank)
    except FederationError as error:
        turn.refused.add(member.key)
        run.tell(Refused(turn.round, member.label, turn.domain, str(error)))
        return
    turn.answered[member.key] = run.replies.keep(Sender(member.key, member.label, member.said.name), said, found)
    sizes = weights.size(turn.start), weights.size(found)
    run.tell(Replied(turn.round, member.label, turn.domain, said.tokens, said.loss, said.seconds, *sizes))


def _conclude(run: Run, turn: Turn) -> tuple[Progress, Weights, Event | None]:
    """Return how far the domain has come, what travels next, and what is to be said about it."""
    needed = max(1, math.ceil(run.settings.quorum * turn.asked))
    if len(turn.answered) >= needed:
        try:
            found = _aggregate(run, turn, needed)
        except FederationError as error:
            return _gave_up(turn, str(error))
        if found is not None:
            progress = _advanced(turn)
            return progress, found.weights, _aggregated(run, turn, progress, found)
    failures = turn.progress.failures + 1
    if failures > run.settings.retries:
        return _gave_up(
            turn,
            f"{len(turn.answered)} of {turn.asked} nodes sent what could be used, expected {needed}, in {failures} "
            "tries: start more nodes, lower quorum or raise deadline, and go on with --resume",
        )
    left_out = tuple(sorted({*turn.progress.left_out, *turn.refused}))
    return replace(turn.progress, failures=failures, left_out=left_out), turn.start, None


def _gave_up(turn: Turn, reason: str) -> tuple[Progress, Weights, Event]:
    return replace(turn.progress, gave_up=reason), turn.start, GaveUp(turn.round, turn.domain, reason)


def _aggregate(run: Run, turn: Turn, needed: int) -> Aggregate | None:
    """Return the domain's next adapter without the replies of absurd norms, or None if too few are left."""
    for key, reason in _outliers(run, turn):
        run.tell(Refused(turn.round, turn.answered.pop(key).sender.label, turn.domain, reason))
        turn.refused.add(key)
    if len(turn.answered) < needed:
        return None
    return run.aggregate(run.settings, turn.start, _updates(turn), round=turn.round)


def _outliers(run: Run, turn: Turn) -> list[tuple[str, str]]:
    """Return the keys of the nodes whose changes have absurd norms, and why they are refused.

    With noise there are none: every change is clipped to a norm that is fixed, and an (ε, δ) would not hold if it
    depended on the others' changes who is left out.
    """
    if run.settings.noise or len(turn.answered) < _CROWD:
        return []
    found = norms(run.settings, turn.start, _updates(turn))
    middle = statistics.median(found)
    return [
        (key, f"its change has norm {norm:.3g}, more than {OUTLIER:g} times the median of the round, {middle:.3g}")
        for (key, _), norm in zip(sorted(turn.answered.items()), found, strict=True)
        if 0 < middle * OUTLIER < norm
    ]


def _updates(turn: Turn) -> Sequence[Update]:
    return [
        Update(stored.sender.label, stored.facts(Trained).tokens, stored.arrays)
        for _, stored in sorted(turn.answered.items())
    ]


def _advanced(turn: Turn) -> Progress:
    before = turn.progress
    participants = dict(before.participants)
    tokens = before.tokens
    for key, stored in sorted(turn.answered.items()):
        said = stored.facts(Trained)
        participants[key] = Participant(stored.sender.label, stored.sender.name, said.kind, said.examples)
        tokens += said.tokens
    return replace(before, done=turn.round, failures=0, left_out=(), tokens=tokens, participants=participants)


def _aggregated(run: Run, turn: Turn, progress: Progress, found: Aggregate) -> Aggregated:
    said = [stored.facts(Trained) for _, stored in sorted(turn.answered.items())]
    tokens = sum(each.tokens for each in said)
    received = sum(_size(run, turn, each.rank) for each in said)
    return Aggregated(
        turn.round,
        turn.domain,
        nodes=len(said),
        loss=sum(each.loss * each.tokens for each in said) / tokens,
        sent=weights.size(turn.start) * turn.asked,
        received=received,
        seconds=0.0,
        clipped=found.clipped,
        excluded=found.excluded,
        discarded=found.discarded,
        epsilon=spent(run.settings, progress.done) if run.settings.noise else None,
    )


def _size(run: Run, turn: Turn, rank: int) -> int:
    """Return the bytes of the weights that a node of this rank sends."""
    return sum(4 * rows * columns for name, (rows, columns) in run.form.shapes(rank).items() if name in turn.start)
