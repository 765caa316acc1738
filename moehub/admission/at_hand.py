"""What the gate may use besides the expert itself; nothing here comes from the expert."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from moehub.base import Base
from moehub.card import BasePin

if TYPE_CHECKING:
    from moehub.experts.statistics import Statistics
    from moehub.signing.keyring import Keyring


@dataclass(frozen=True)
class AtHand:
    """What is at hand where an expert is checked; everything may be missing."""

    pin: BasePin | None = None
    """The base that the expert should belong to."""
    base_config: Mapping[str, object] | None = None
    """That base's `config.json`: names and shapes of its linears."""
    base: Base | None = None
    """That base with its weights on disk: for forward passes."""
    canary: Path | None = None
    """Public text that no expert should make the base worse on."""
    domain_text: Path | None = None
    """Text of the expert's own domain, not its publisher's choice, that the expert should gain on."""
    null: "Statistics | None" = None
    """Counts of generic text: the neutral text of the routing checks."""
    others: "Mapping[str, Statistics]" = field(default_factory=dict)
    """Name → statistics of the experts that it will stand beside."""
    repo: str | None = None
    """`org/name` on the hub it comes from: whose key must have signed it."""
    least_version: int | None = None
    """The version of the newest that was seen of it: an older one is a replay."""
    keyring: "Keyring | None" = None
    """The publishers' keys that are trusted here; None: nobody pinned any."""
