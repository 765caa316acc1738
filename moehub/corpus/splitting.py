"""Records on two or three sides, decided by what they say and never by their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moehub.corpus import items, near, writing
from moehub.corpus.items import Item
from moehub.corpus.words import fingerprint
from moehub.errors import ConfigError, DataError

SHARE = 0.05


@dataclass(frozen=True)
class Sides:
    """Where each record goes, in the order of the files."""

    train: Sequence[Item]
    test: Sequence[Item]
    valid: Sequence[Item]
    groups: int
    """Sets of records that stay on one side, as copies do."""

    def to_dict(self) -> dict[str, int]:
        """Return the counts."""
        counts = {"train": len(self.train), "test": len(self.test), "valid": len(self.valid)}
        return {"records": sum(counts.values()), "groups": self.groups, **counts}

    def write(self, train: Path, test: Path, valid: Path | None = None) -> None:
        """Write each side.

        Raises:
            DataError: the records do not fit into an output's format.
        """
        for place, side in ((train, self.train), (test, self.test), (valid, self.valid)):
            if place is not None:
                writing.write(place, [item.record for item in side])


def split(
    sources: Sequence[Path],
    share: float = SHARE,
    *,
    valid: bool = False,
    apart: bool = True,
    threshold: float = near.THRESHOLD,
) -> Sides:
    """Return about `share` of the records to test with, with `valid` as many to validate with, and the rest.

    Records that are the same but for case and white space stay together, with `apart` near-duplicates too. A group
    goes to a side by the smallest fingerprint of its texts, read as a number between 0 and 1. A side that would be
    empty gets the group whose number is next to it.

    Raises:
        DataError: a file cannot be read, has records that are none to learn from, or there are too few to part.
        ConfigError: a share that leaves nothing to train on, or no threshold.
    """
    sides = 2 if valid else 1
    if not 0 < share * sides < 1:
        raise ConfigError(f"the share is {share:g} for {sides} side(s), expected above 0 and together below 1")
    found = items.read(sources)
    texts = [item.text for item in found]
    members = near.groups(texts, threshold).tolist() if apart else [fingerprint(text) for text in texts]
    numbers: dict[object, float] = {}
    for member, text in zip(members, texts, strict=True):
        numbers[member] = min(numbers.get(member, 1.0), int(fingerprint(text)[:13], 16) / 16**13)
    if len(numbers) <= sides:
        raise DataError(
            f"the records make {len(numbers)} group(s) that have to stay together, expected more than {sides} to part"
        )
    ranked = sorted(numbers, key=lambda member: (numbers[member], str(member)))
    held = max(1, sum(numbers[member] < share for member in ranked))
    until = max(held + 1, sum(numbers[member] < 2 * share for member in ranked)) if valid else held
    until = min(until, len(ranked) - 1)
    held = min(held, until - valid)
    test, validating = set(ranked[:held]), set(ranked[held:until])
    return Sides(
        [item for item, member in zip(found, members, strict=True) if member not in test | validating],
        [item for item, member in zip(found, members, strict=True) if member in test],
        [item for item, member in zip(found, members, strict=True) if member in validating],
        len(numbers),
    )
