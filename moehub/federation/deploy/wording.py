"""Each event of a run as one line for a person."""

from collections.abc import Callable
from functools import singledispatch

from rich.filesize import decimal

from moehub.federation.journal import (
    Aggregated,
    Began,
    Ended,
    Event,
    GaveUp,
    Joined,
    Missing,
    Published,
    Refused,
    RoundBegan,
)

Name = Callable[[str], str]
"""Turns a node's label in the journal into what it is called here."""


@singledispatch
def line(event: Event, name: Name) -> str:  # noqa: ARG001 (the signature of all)
    """Return what happened, or nothing where the table alone tells it."""
    return ""


@line.register
def _(event: Began, name: Name) -> str:  # noqa: ARG001
    after = f", going on after round {event.after}" if event.after else ""
    return f"federation on {event.base}: {_count(event.rounds, 'round')} of {event.aggregation}{after}"


@line.register
def _(event: Joined, name: Name) -> str:
    return f"{name(event.node)} joined: {event.domain}, on {event.device}"


@line.register
def _(event: Refused, name: Name) -> str:
    where = f" in round {event.round}" if event.round else ""
    return f"{name(event.node)} was refused{where}: {event.reason}"


@line.register
def _(event: Missing, name: Name) -> str:
    return f"{name(event.node)} ({event.domain}) is missing in round {event.round}: {event.reason}"


@line.register
def _(event: RoundBegan, name: Name) -> str:  # noqa: ARG001
    asked = ", ".join(f"{domain} {_count(nodes, 'node')}" for domain, nodes in sorted(event.domains.items()))
    return f"round {event.round}: {asked}"


@line.register
def _(event: Aggregated, name: Name) -> str:
    said = {
        _count(event.nodes, "node"): True,
        f"loss {event.loss:.4f}": True,
        decimal(event.sent + event.received): True,
        f"{event.seconds:.1f} s": True,
        # Clipping at the median touches half of the nodes: their number says more than their names.
        f"{len(event.clipped)} clipped": bool(event.clipped),
        f"left out: {', '.join(map(name, event.excluded))}": bool(event.excluded),
        f"{event.discarded:.1%} of the energy discarded": event.discarded > 0.0005,
        f"ε = {event.epsilon or 0:.2f}": event.epsilon is not None,
    }
    return f"round {event.round}, {event.domain}: " + ", ".join(part for part, holds in said.items() if holds)


@line.register
def _(event: GaveUp, name: Name) -> str:  # noqa: ARG001
    return f"{event.domain} gave up in round {event.round}: {event.reason}"


@line.register
def _(event: Published, name: Name) -> str:  # noqa: ARG001
    if event.base_loss is None or event.expert_loss is None:
        return f"{event.domain} is finished"
    return f"{event.domain} is finished: held-out loss {event.base_loss:.4f} → {event.expert_loss:.4f}"


@line.register
def _(event: Ended, name: Name) -> str:  # noqa: ARG001
    return f"{_count(event.experts, 'expert')} in {event.seconds:.1f} s"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
