"""The gate's thresholds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """How much the gate lets through; `docs/admission.md` says how the defaults were calibrated."""
