"""The expert that is being checked: what its files hold, read once and only as far as a step needs."""

import os
import stat
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from moehub.admission.header import Header, read_header
from moehub.admission.strict import Document, parse
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, STATISTICS_FILE, Card, parse_card
from moehub.errors import ExpertError

if TYPE_CHECKING:
    from moehub.admission.magnitude import Magnitude
    from moehub.experts.adapter import Adapter
    from moehub.experts.statistics import Statistics


class Subject:
    """An expert's folder that nobody trusts yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def modes(self) -> Mapping[str, int]:
        """Name of everything in the folder → its mode, of a link itself and not of where it leads.

        Raises:
            ExpertError: there is no such folder.
        """
        try:
            with os.scandir(self.folder) as found:
                return {entry.name: entry.stat(follow_symlinks=False).st_mode for entry in found}
        except OSError as error:
            raise ExpertError(f"{self.folder} cannot be read ({error.strerror}): name an expert's folder") from error

    @cached_property
    def headers(self) -> tuple[Header, ...]:
        """The headers of the safetensors files that are there; safe to ask for from step 2 on."""
        names = (ADAPTER_WEIGHTS, STATISTICS_FILE)
        return tuple(read_header(self.folder / name) for name in names if stat.S_ISREG(self.modes.get(name, 0)))

    @property
    def weights(self) -> Header:
        """The header of the adapter's weights; safe to ask for from step 2 on."""
        return self.headers[0]

    @property
    def counts(self) -> Header | None:
        """The header of the router statistics, or None where there are none; safe to ask for from step 2 on."""
        return next((header for header in self.headers if header.path.name == STATISTICS_FILE), None)

    @cached_property
    def config_document(self) -> Document:
        """What `adapter_config.json` holds; safe to ask for from step 3 on.

        Raises:
            StrictJsonError: it is no JSON that all readers read alike.
        """
        return parse((self.folder / ADAPTER_CONFIG).read_bytes())

    @cached_property
    def config(self) -> Mapping[str, object]:
        """The adapter's configuration; empty where it cannot be read, which step 4 refuses."""
        try:
            value = self.config_document.value
        except ExpertError:
            return {}
        return value if isinstance(value, dict) else {}

    @cached_property
    def card_document(self) -> Document:
        """What `expert.json` holds; safe to ask for from step 3 on.

        Raises:
            StrictJsonError: it is no JSON that all readers read alike.
        """
        return parse((self.folder / CARD_FILE).read_bytes())

    @cached_property
    def card(self) -> Card:
        """The card; safe to ask for from step 4 on.

        Raises:
            ExpertError: it is none of format 1, which step 4 refuses.
        """
        return parse_card(self.card_document.value, source="the card")

    @cached_property
    def adapter(self) -> "Adapter":
        """The adapter's matrices and scales; safe to ask for from step 6 on."""
        from moehub.experts.adapter import read_adapter
        from moehub.experts.folder import Expert

        return read_adapter(Expert(self.folder, self.card))

    @cached_property
    def updates(self) -> "Mapping[str, Magnitude]":
        """Name of a linear → how large the update s·B·A of it is; safe to ask for from step 6 on."""
        from moehub.admission import magnitude

        pairs, scales = self.adapter.pairs, self.adapter.scales
        return {linear: magnitude.of_update(A, B, scales[linear]) for linear, (A, B) in pairs.items()}

    @cached_property
    def statistics(self) -> "Statistics | None":
        """The router statistics, or None where there are none; safe to ask for from step 6 on."""
        from moehub.experts.statistics import Statistics

        return None if self.counts is None else Statistics.load(self.counts.path)

    def size(self, name: str) -> int:
        """Return the bytes of a file; safe to ask for from step 2 on."""
        return (self.folder / name).stat(follow_symlinks=False).st_size
