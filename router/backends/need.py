"""What a backend needs and a machine does not have."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Need:
    """Something that is missing."""

    what: str
    """As `the package triton`."""
    cure: str
    """As `pip install triton`."""
