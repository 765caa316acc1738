"""The expert that is being checked: what its files hold, read once and only as far as a step needs."""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from moehub.card import Card, read_card

if TYPE_CHECKING:
    from moehub.experts.adapter import Adapter
    from moehub.experts.statistics import Statistics


class Subject:
    """An expert's folder that nobody trusts yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def card(self) -> Card:
        """The card; safe to ask for from step 4 on."""
        return read_card(self.folder)

    @cached_property
    def adapter(self) -> "Adapter":
        """The adapter's matrices and scales; safe to ask for from step 6 on."""
        from moehub.experts.adapter import read_adapter
        from moehub.experts.folder import Expert

        return read_adapter(Expert(self.folder, self.card))

    @cached_property
    def statistics(self) -> "Statistics | None":
        """The router statistics, or None where there are none; safe to ask for from step 6 on."""
        from moehub.card import STATISTICS_FILE
        from moehub.experts.statistics import Statistics

        path = self.folder / STATISTICS_FILE
        return Statistics.load(path) if path.is_file() else None
