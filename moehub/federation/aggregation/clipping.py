"""No node pulls harder than the median: how large a change may be before it is scaled down."""

import math
import statistics
from collections.abc import Iterable

from moehub.federation.settings import FederationConfig

_LEAST = 3
"""Below this many updates a median says nothing about who is an outlier."""


def limit(settings: FederationConfig, norms: Iterable[float]) -> float:
    """Return the norm that changes are scaled down to; infinite where nothing is clipped.

    With noise it is the fixed `noise_clip`: a median depends on everybody's data, and then the noise would not cover
    what one node can do to the result. Without, it is the median of the round, of an even number the lower one.
    """
    found = list(norms)
    if settings.noise:
        return settings.noise_clip
    if not settings.clip or len(found) < _LEAST:
        return math.inf
    return statistics.median_low(found)


def scale(norm: float, limit: float) -> float:
    """Return the factor that brings a change of this norm within the limit."""
    return limit / norm if norm > limit else 1.0
