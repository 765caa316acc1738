"""What goes into an aggregation, and what comes out of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from moehub.federation.settings import FederationConfig
from moehub.federation.weights import Weights


@dataclass(frozen=True)
class Update:
    """A reply that was accepted; it stays on disk until a method asks for it."""

    node: str
    """The node's label."""
    tokens: int
    """That it learned in this round: its weight."""
    load: Callable[[], Weights]
    """Returns what it sent, under the names of what it was sent."""


@dataclass(frozen=True)
class Gathered:
    """What a method works with: the round's updates of one domain, in the order of their labels."""

    settings: FederationConfig
    start: Weights
    """What the nodes were sent."""
    updates: tuple[Update, ...]
    scales: tuple[float, ...]
    """For each update the factor of its change: what clips it, at most 1, times the server's learning rate."""
    round: int

    @property
    def shares(self) -> tuple[float, ...]:
        """For each update its share of all tokens."""
        total = sum(update.tokens for update in self.updates)
        return tuple(update.tokens / total for update in self.updates)


@dataclass(frozen=True)
class Aggregate:
    """The adapter that a domain goes on with, and what was done to the updates."""

    weights: Weights
    """What travels next, float32."""
    norms: dict[str, float] = field(default_factory=dict)
    """Label → norm of the node's change, before clipping."""
    clipped: tuple[str, ...] = ()
    """Nodes whose change was scaled down."""
    excluded: tuple[str, ...] = ()
    """Nodes that the method itself left out."""
    discarded: float = 0.0
    """Share of the energy (squared singular values) that did not fit into the rank."""
    noise: float = 0.0
    """Standard deviation of what was added to each value."""


def moved(start: Weights, changes: dict[str, np.ndarray]) -> Weights:
    """Return `start` with `changes` added in float64, as float32."""
    return {name: (values + changes[name]).astype(np.float32) for name, values in start.items()}
