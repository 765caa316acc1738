"""What a federation on this machine would be, without starting anything."""

from collections import Counter
from dataclasses import dataclass

from moehub import base as bases
from moehub.federation.form import form_of
from moehub.federation.settings import Gathering
from moehub.federation.weights import A

_FLOAT = 4
_SERVER = 3
"""Processes at the server's end: SuperLink, SuperExec, ServerApp."""
_NODE = 2
"""Processes that stay at a node: SuperNode, SuperExec."""


@dataclass(frozen=True)
class Plan:
    """A federation that could be run."""

    base: str
    domains: dict[str, int]
    """Domain → nodes."""
    rounds: int
    steps: int
    aggregation: str
    carried: int
    """Bytes of the adapter, to each node and from it, in each round."""
    processes: int
    """That run all the time; one more for each message in work."""


def plan(gathering: Gathering) -> Plan:
    """Return what would be run.

    Raises:
        BaseModelError: there is no such base.
        ConfigError: the base has no linears of the names in the settings.
    """
    settings = gathering.federation
    base = bases.find(settings.base)
    shapes = form_of(base, settings.train).shapes(settings.train.rank)
    values = sum(
        rows * columns for name, (rows, columns) in shapes.items() if not (settings.frozen_a and name.endswith(A))
    )
    return Plan(
        base=base.reference,
        domains=dict(sorted(Counter(node.domain for node in gathering.nodes).items())),
        rounds=settings.rounds,
        steps=settings.steps,
        aggregation=settings.aggregation,
        carried=2 * values * _FLOAT,
        processes=_SERVER + _NODE * len(gathering.nodes) + 1,
    )
