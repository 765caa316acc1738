"""Bad experts made by code: one generator for each attack, and the code that it must be refused with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from moehub.admission.at_hand import AtHand
from tests.world import World


@dataclass(frozen=True)
class Attack:
    """One thing that an untrusted contributor, or whoever may write to a hub, can do."""

    name: str
    code: str
    """Of the check that must refuse it."""
    make: Callable[[Path, World], Path]
    """Makes the bad expert in a folder that is not there yet, and returns that folder."""
    at_hand: Callable[[World], AtHand] | None = None
    """What the gate needs at hand to refuse it; None: what a world offers anyhow."""


def registered() -> list[Attack]:
    """Return every attack."""
    from tests.attacks import publisher

    return [*publisher.ATTACKS]
