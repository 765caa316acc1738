"""The adapters that the nodes made become expert folders; torch is imported only here."""

from dataclasses import replace
from pathlib import Path

import torch

from moehub.card import Card, Federated, Metrics, Stage
from moehub.errors import ExpertError, FederationError, TrainingError
from moehub.experts import publication
from moehub.experts.folder import Expert
from moehub.experts.statistics import Statistics
from moehub.federation import weights
from moehub.federation.aggregation.privacy import spent
from moehub.federation.journal import GaveUp, Published
from moehub.federation.push import EXPERTS
from moehub.federation.server import statistics
from moehub.federation.server.context import Run
from moehub.federation.server.state import Progress, State
from moehub.federation.server.statistics import Findings
from moehub.federation.weights import Weights


def publish(run: Run, state: State, initial: Weights) -> State:
    """Write the expert of each domain that is finished, and return the state that says so.

    `initial` is the adapter that the run began with, whole.
    """
    found = statistics.measure(run, state, weights.digest(initial))
    for domain in state.unpublished():
        state = _publish(run, state, domain, initial, found[domain])
        run.checkpoints.amend(state)
    return state


def _publish(run: Run, state: State, domain: str, initial: Weights, found: Findings) -> State:
    progress, output = state.domains[domain], run.output / EXPERTS / domain
    counted = statistics.total(run, domain, found)
    if counted is None:
        reason = "none of its nodes sent router statistics: start them again, and go on with --resume"
        run.tell(GaveUp(run.settings.rounds, domain, reason))
        return _with(state, domain, replace(progress, gave_up=reason))
    if not progress.version:
        # Decided before the expert is there: a server that is killed in between writes the same one again.
        progress = replace(progress, version=_version(output))
        state = _with(state, domain, progress)
        run.checkpoints.amend(state)
    card = _card(run, state, domain, statistics.metrics(found))
    expert = _write(run, output, {**initial, **state.weights[domain]}, counted, card)
    _announce(run, expert)
    return _with(state, domain, replace(progress, published=progress.done, version=0))


def _with(state: State, domain: str, progress: Progress) -> State:
    return replace(state, domains={**state.domains, domain: progress})


def _version(output: Path) -> int:
    try:
        return publication.check_place(output, overwrite=True)
    except TrainingError as error:
        raise FederationError(f"{output} is no expert and in the way: remove it, and go on with --resume") from error


def _write(run: Run, output: Path, adapter: Weights, counted: Statistics, card: Card) -> Expert:
    tensors = {name: torch.from_numpy(adapter[name]) for name in sorted(adapter)}
    try:
        return publication.publish(output, weights=tensors, config=run.settings.train, statistics=counted, card=card)
    except (TrainingError, ExpertError) as error:
        raise FederationError(f"the expert {card.name!r} cannot be written: {error}") from error


def _announce(run: Run, expert: Expert) -> None:
    card, federation = expert.card, expert.card.federation
    losses = card.metrics or Metrics(base_loss=0.0, expert_loss=0.0, tokens=0)
    run.tell(
        Published(
            card.domain,
            str(expert.folder),
            federation.nodes if federation else 0,
            base_loss=losses.base_loss if card.metrics else None,
            expert_loss=losses.expert_loss if card.metrics else None,
            tokens=losses.tokens,
        )
    )


def _card(run: Run, state: State, domain: str, metrics: Metrics | None) -> Card:
    settings, progress = run.settings, state.domains[domain]
    took_part = progress.participants.values()
    stage = Stage(
        kind="pretrain" if {each.kind for each in took_part} == {"pretrain"} else "sft",
        tokens=progress.tokens,
        steps=progress.done * settings.steps,
        examples=sum(each.examples for each in took_part),
        seconds=state.seconds,
    )
    return Card(
        name=domain,
        domain=domain,
        base=run.form.base,
        rank=settings.train.rank,
        alpha=settings.train.alpha,
        targets=run.form.targets,
        license=settings.train.license,
        stages=(stage,),
        metrics=metrics,
        files={},
        version=progress.version,
        packages=publication.versions(),
        federation=Federated(
            nodes=len(progress.participants),
            rounds=progress.done,
            aggregation=settings.aggregation,
            contributors=tuple(sorted({each.name for each in took_part if each.name})),
            epsilon=spent(settings, progress.done) if settings.noise else None,
            delta=settings.delta if settings.noise else None,
        ),
    )
