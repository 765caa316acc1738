"""Bad experts made by code: one generator for each attack, and the code that it must be refused with."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from moehub.admission.at_hand import AtHand
from moehub.base import find
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
    """What the gate needs at hand to refuse it; None: `base_at_hand`."""

    def offered(self, world: World) -> AtHand:
        """Return what the gate has at hand when it meets the attack."""
        return base_at_hand(world) if self.at_hand is None else self.at_hand(world)


def base_at_hand(world: World) -> AtHand:
    """Return what a merge has at hand anyhow: the base's identity and its configuration."""
    return _of_base(world.base)


@cache
def _of_base(folder: Path) -> AtHand:
    base = find(str(folder))
    return AtHand(pin=base.pin(), base_config=base.load_config().to_diff_dict())


def registered() -> list[Attack]:
    """Return every attack."""
    from tests.attacks import behaviour, features, headers, manifest, names, publisher, routing, sizes, tensors

    modules = (names, sizes, headers, manifest, tensors, publisher, behaviour, routing, features)
    return [attack for module in modules for attack in module.ATTACKS]
