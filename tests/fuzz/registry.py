"""Every target."""

from tests.fuzz import experts, pieces, requests, texts
from tests.fuzz.target import Target


def registered() -> dict[str, Target]:
    """Return name → target."""
    return {each.name: each for module in (texts, pieces, requests, experts) for each in module.TARGETS}
