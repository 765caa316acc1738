"""Every check of the gate, in the order they are made."""

import importlib
from functools import cache

from moehub.admission.check import Check

_MODULES = (
    *("folder", "sizes", "headers", "manifest", "tensors", "counts", "norms", "publisher"),
    *("canary", "plausibility", "feature_evidence", "routing"),
)
"""Those of `moehub.admission` that hold checks."""


@cache
def registered() -> tuple[Check, ...]:
    """Return every check, by step; modules that import torch are imported here, not before."""
    modules = [importlib.import_module(f"moehub.admission.{name}") for name in _MODULES]
    found = [one for module in modules for one in vars(module).values() if isinstance(one, Check)]
    return tuple(sorted(found, key=lambda one: one.step))
