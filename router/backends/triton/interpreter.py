"""Triton without a GPU."""

import os


def interpreted() -> bool:
    """Return whether triton interprets its programs, slowly and on any device, as the tests do."""
    return os.environ.get("TRITON_INTERPRET") == "1"
