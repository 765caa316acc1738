"""How far a run has come: what a checkpoint holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from moehub.federation.weights import Weights


@dataclass(frozen=True)
class Participant:
    """A node whose training went into a domain's expert."""

    label: str
    """What people see."""
    name: str
    """Empty unless its owner agreed to be named."""
    kind: str
    """`pretrain` or `sft`: what its text is."""
    examples: int
    """In its training split, when it last trained."""


@dataclass(frozen=True)
class Progress:
    """How far one domain has come."""

    done: int = 0
    """Rounds."""
    failures: int = 0
    """Tries of the round in progress that had no quorum."""
    left_out: tuple[str, ...] = ()
    """Keys of the nodes that are not asked again in the round in progress: their replies were refused."""
    tokens: int = 0
    """That were learned, by all nodes in all rounds."""
    participants: dict[str, Participant] = field(default_factory=dict)
    """Key of the node → what is known of it."""
    gave_up: str = ""
    """Why there will be no expert; empty: it goes on."""
    version: int = 0
    """Of the expert that may be written, once it was decided."""
    published: int = 0
    """Rounds that went into the expert that was written; 0: none was."""


@dataclass(frozen=True)
class State:
    """How far a run has come."""

    lap: int = 0
    """Times that nodes were asked to train. A domain that tries a round again falls behind it."""
    seconds: float = 0.0
    """Wall time spent before this run of the server."""
    domains: Mapping[str, Progress] = field(default_factory=dict)
    weights: Mapping[str, Weights] = field(default_factory=dict)
    """Domain → what travels next: both factors, or B alone where A is frozen."""

    def training(self, rounds: int) -> list[str]:
        """Return the domains that have rounds left, in order."""
        return sorted(name for name, each in self.domains.items() if not each.gave_up and each.done < rounds)

    def unpublished(self) -> list[str]:
        """Return the domains whose expert is to be written, in order."""
        return sorted(name for name, each in self.domains.items() if not each.gave_up and each.published < each.done)

    def revived(self) -> "State":
        """Return the state in which the domains that gave up are tried again."""
        domains = {
            name: replace(each, failures=0, left_out=(), gave_up="") if each.gave_up else each
            for name, each in self.domains.items()
            if name in self.weights
        }
        return replace(self, domains=domains)

    def named(self) -> dict[str, str]:
        """Return each domain that gave up and why, in order."""
        return {name: each.gave_up for name, each in sorted(self.domains.items()) if each.gave_up}
