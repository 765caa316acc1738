"""Many contributors' adapters of one domain become one.

A method is one function from the round's updates to the next adapter, and is registered here and nowhere else.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from moehub.errors import FederationError
from moehub.federation.aggregation import clipping, mean, privacy, product, robust
from moehub.federation.aggregation.update import Aggregate, Gathered, Update
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import Weights

__all__ = ["Aggregate", "Update", "aggregate", "norms"]

_METHODS: dict[str, Callable[[Gathered], Aggregate]] = {
    "ffa": mean.mean,
    "fedavg": mean.mean,
    "product": product.product,
    "median": robust.robust,
    "trimmed": robust.robust,
    "krum": robust.robust,
    "multikrum": robust.robust,
}


def aggregate(
    settings: FederationConfig,
    start: Weights,
    updates: Sequence[Update],
    *,
    round: int,  # noqa: A002 (the domain's word)
) -> Aggregate:
    """Return the adapter that follows from `start` and the accepted `updates` of a domain, in whatever order they came.

    The updates have the names, shapes and finite values that were asked for: that was checked when they came.

    Raises:
        FederationError: there are no updates, one has no tokens, they are too few for the method, or the result is not
            finite.
    """
    ordered = tuple(sorted(updates, key=lambda update: update.node))
    _check(ordered, round)
    sizes = norms(settings, start, ordered)
    limit = clipping.limit(settings, sizes)
    scales = tuple(settings.server_rate * clipping.scale(size, limit) for size in sizes)
    method = privacy.noisy if settings.noise else _METHODS[settings.aggregation]
    with np.errstate(over="ignore"):  # what overflows becomes infinite, and is refused below
        found = method(Gathered(settings, start, ordered, scales, round))
    if not all(np.isfinite(values).all() for values in found.weights.values()):
        raise FederationError(
            f"round {round}: the {settings.aggregation} of {len(ordered)} updates, of norms up to {max(sizes):.3g}, is "
            "beyond what float32 holds: set clip to true, or refuse such nodes"
        )
    return dataclasses.replace(
        found,
        norms={update.node: size for update, size in zip(ordered, sizes, strict=True)},
        clipped=tuple(update.node for update, size in zip(ordered, sizes, strict=True) if size > limit),
    )


def norms(settings: FederationConfig, start: Weights, updates: Sequence[Update]) -> list[float]:
    """Return how far each update is from `start`: in its values, or under `product` in alpha / rank · B·A."""
    size = product.norm if settings.aggregation == "product" else mean.norm
    return [size(settings, start, update.load()) for update in updates]


def _check(updates: Sequence[Update], round: int) -> None:  # noqa: A002 (the domain's word)
    if not updates:
        raise FederationError(f"round {round}: there is no update to aggregate: wait for nodes, or end the domain")
    if empty := [update.node for update in updates if update.tokens < 1]:
        raise FederationError(
            f"round {round}: {', '.join(empty)} sent an update that learned from no token, expected 1 or more: "
            "leave it out"
        )
