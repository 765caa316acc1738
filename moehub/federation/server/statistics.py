"""After the last round: what the expert is worth on held-out text, and the router statistics of all nodes together.

Losses are means over all held-out tokens. Statistics are integers and are added: those of ten nodes are those of their
pooled text, to the bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moehub.card import Metrics
from moehub.errors import ExpertError, FederationError
from moehub.federation import messages
from moehub.federation.journal import Missing, Refused
from moehub.federation.messages import Counted, Evaluated, EvaluateTask, StatisticsTask
from moehub.federation.server import validation
from moehub.federation.server.context import Run, named
from moehub.federation.server.post import Answer, Letter
from moehub.federation.server.replies import Sender, Stored
from moehub.federation.server.roster import Member
from moehub.federation.server.state import State
from moehub.federation.weights import digest

if TYPE_CHECKING:
    from moehub.experts.statistics import Statistics


@dataclass(frozen=True)
class Findings:
    """What the nodes of a domain found out; the replies lie on disk."""

    losses: Sequence[Stored]
    counts: Sequence[Stored]


@dataclass(frozen=True)
class _Questions:
    """What a node that took part is asked at the end."""

    evaluate: EvaluateTask
    count: StatisticsTask


def measure(run: Run, state: State, start: str) -> dict[str, Findings]:
    """Ask the nodes that took part in the domains that are to be published, and return what each domain's found.

    `start` is the digest of the adapter that the run began with.
    """
    domains = state.unpublished()
    run.wait(lambda: all(_present(run, state, domain) for domain in domains))
    questions = {domain: _questions(run, state, domain, start) for domain in domains}
    members = {member.node: member for domain in domains for member in _present(run, state, domain)}
    found = {stored.task: stored for stored in run.replies.stored()}
    letters = []
    for domain in domains:
        arrays = messages.packed(state.weights[domain])
        for member in _present(run, state, domain):
            asked = questions[domain][member.key]
            letters.append(Letter(member.node, messages.EVALUATE, asked.evaluate, arrays))
            letters.append(Letter(member.node, messages.STATISTICS, asked.count))
    unanswered = [letter for letter in letters if letter.task.task not in found]
    for answer in run.post.ask(unanswered, run.settings.deadline, idle=run.roster.look):
        stored = _receive(run, members[answer.letter.node], answer)
        if stored is not None:
            found[stored.task] = stored
    _name_absent(run, state, domains)
    return {domain: _findings(questions[domain], found) for domain in domains}


def _findings(questions: Mapping[str, _Questions], found: Mapping[str, Stored]) -> Findings:
    asked = [questions[key] for key in sorted(questions)]
    return Findings(
        [found[each.evaluate.task] for each in asked if each.evaluate.task in found],
        [found[each.count.task] for each in asked if each.count.task in found],
    )


def metrics(found: Findings) -> Metrics | None:
    """Return the losses over all held-out tokens of a domain, or None where nothing was held out."""
    said = [each for stored in found.losses if (each := stored.facts(Evaluated)).tokens]
    tokens = sum(each.tokens for each in said)
    if not tokens:
        return None
    base, expert = (
        sum(loss * each.tokens for loss, each in zip(losses, said, strict=True)) / tokens
        for losses in ([each.base_loss for each in said], [each.expert_loss for each in said])
    )
    return Metrics(base_loss=base, expert_loss=expert, tokens=tokens)


def total(run: Run, domain: str, found: Findings) -> "Statistics | None":
    """Return the sum of a domain's statistics, small counts suppressed, or None where there are none; loads torch."""
    whole = None
    for stored in found.counts:
        try:
            mine = _statistics(stored)
            whole = mine if whole is None else whole + mine
        except ExpertError as error:
            run.tell(Refused(run.settings.rounds, stored.sender.label, domain, str(error)))
    return None if whole is None else whole.suppress(run.settings.train.suppress_below)


def _statistics(stored: Stored) -> "Statistics":
    from moehub.experts.statistics import Statistics

    said = stored.facts(Counted)
    names = ("tokenizer", "vocabulary", "pair_bits", "triple_bits", "suppressed_below")
    facts = {name: getattr(said, name) for name in names}
    if said.recipe:
        facts |= {"features.recipe": said.recipe, "features.count": said.features}
    return Statistics.from_arrays(facts, stored.arrays())


def _questions(run: Run, state: State, domain: str, start: str) -> dict[str, _Questions]:
    """Return what each node that took part is asked, by its key."""
    asked, weights = run.asked(domain), digest(state.weights[domain])
    evaluate = EvaluateTask(**asked, frozen_a=run.settings.frozen_a, start=start)
    return {
        key: _Questions(named(evaluate, node=key, weights=weights), named(StatisticsTask(**asked), node=key))
        for key in state.domains[domain].participants
    }


def _present(run: Run, state: State, domain: str) -> list[Member]:
    """Return the connected nodes that took part in a domain."""
    return [each for each in run.roster.present(domain) if each.key in state.domains[domain].participants]


def _receive(run: Run, member: Member, answer: Answer) -> Stored | None:
    task, last = answer.letter.task, run.settings.rounds
    what = "held-out losses" if isinstance(task, EvaluateTask) else "router statistics"
    if answer.content is None:
        run.tell(Missing(last, member.label, member.domain, f"no {what}: {answer.reason}"))
        return None
    sender = Sender(member.key, member.label, member.said.name)
    try:
        if isinstance(task, EvaluateTask):
            return run.replies.keep(sender, validation.evaluated(answer.content, task.task, run.form, run.settings))
        said, arrays = validation.counted(answer.content, task.task, run.form, run.settings)
        return run.replies.keep(sender, said, arrays)
    except FederationError as error:
        run.tell(Refused(last, member.label, member.domain, str(error)))
        return None


def _name_absent(run: Run, state: State, domains: Sequence[str]) -> None:
    for domain in domains:
        here = {member.key for member in _present(run, state, domain)}
        for key, participant in sorted(state.domains[domain].participants.items()):
            if key not in here:
                reason = "no router statistics: it left before the end"
                run.tell(Missing(run.settings.rounds, participant.label, domain, reason))
