"""The expert folder, format 1: open one and trust it only as far as its card's digests hold."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from moehub import files
from moehub.card import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CARD_FILE,
    EXPERT_FILES,
    PINNED_FILES,
    README,
    STATISTICS_FILE,
    Card,
    folder_faults,
    read_card,
)
from moehub.errors import ExpertError, listed
from moehub.experts.statistics import Statistics

__all__ = [
    "ADAPTER_CONFIG",
    "ADAPTER_WEIGHTS",
    "EXPERT_FILES",
    "README",
    "STATISTICS_FILE",
    "Expert",
    "folder_faults",
    "open_expert",
    "seal",
]


@dataclass(frozen=True)
class Expert:
    """An expert on disk whose files are those its card pins."""

    folder: Path
    card: Card

    @property
    def name(self) -> str:
        """The expert's name."""
        return self.card.name

    def statistics(self) -> Statistics:
        """Return the router statistics.

        Raises:
            ExpertError: the expert was published without, or they are damaged.
        """
        path = self.folder / STATISTICS_FILE
        if not path.is_file():
            raise ExpertError(
                f"{self.folder} has no {STATISTICS_FILE}: the router cannot be made without; "
                "ask its publisher to train it with moehub, or use --router arrow"
            )
        return Statistics.load(path)


def open_expert(folder: Path) -> Expert:
    """Return the expert in `folder` after checking every file against the card.

    Raises:
        ExpertError: no card, a missing, changed or unexpected file; all faults are listed.
    """
    card = read_card(folder)
    faults = folder_faults(folder, card)
    if faults:
        raise ExpertError(listed(f"{folder} is not the expert its card describes:", faults))
    return Expert(folder, card)


def seal(folder: Path, card: Card) -> Card:
    """Pin every file of `folder` in the card, write it as the last file, and return it.

    A folder without a card is no expert, so an interrupted training never looks like one.
    """
    pinned = {name: files.sha256(folder / name) for name in sorted(PINNED_FILES) if (folder / name).is_file()}
    sealed = dataclasses.replace(card, files=pinned)
    files.write_text(folder / CARD_FILE, sealed.to_json())
    return sealed
