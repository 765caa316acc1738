"""Updates made on the spot: small random adapters as nodes send them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moehub.experts.settings import TrainConfig
from moehub.federation.aggregation import Update
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import A, B, Weights, trained

LINEARS = {"model.0.q": (24, 16), "model.0.down": (30, 12)}
"""Name → d_in, d_out."""


def settings(aggregation: Any = "ffa", *, rank: int = 4, alpha: float = 8.0, **changes: Any) -> FederationConfig:
    """Return a federation that clips nothing unless told to."""
    train = TrainConfig(rank=rank, alpha=alpha)
    return FederationConfig(base="base", aggregation=aggregation, train=train, **{"clip": False, **changes})


def adapter(seed: int, *, rank: int = 4, size: float = 1.0, linears: dict[str, tuple[int, int]] = LINEARS) -> Weights:
    """Return both factors of every linear, normal with this standard deviation."""
    random = np.random.default_rng(seed)
    return {
        name: (size * random.normal(size=shape)).astype(np.float32)
        for linear, (inputs, outputs) in sorted(linears.items())
        for name, shape in ((linear + A, (rank, inputs)), (linear + B, (outputs, rank)))
    }


def near(start: Weights, seed: int, size: float = 0.1) -> Weights:
    """Return weights whose values differ from `start` by about `size`."""
    random = np.random.default_rng(seed)
    return {
        name: (values + size * random.normal(size=values.shape)).astype(np.float32) for name, values in start.items()
    }


def federation(
    aggregation: Any = "ffa", nodes: int = 5, **changes: Any
) -> tuple[FederationConfig, Weights, list[Weights]]:
    """Return settings, what was sent, and what so many nodes send back, all near each other."""
    chosen = settings(aggregation, **changes)
    start = trained(adapter(0, rank=chosen.train.rank), frozen_a=chosen.frozen_a)
    honest = near(start, 1)
    return chosen, start, [near(honest, 2 + node, 0.02) for node in range(nodes)]


def updates(sent: Sequence[Weights], tokens: Sequence[int] | None = None) -> list[Update]:
    """Return the replies as updates of node-00, node-01 and so on."""
    counts = tokens or [100] * len(sent)
    return [
        Update(f"node-{place:02d}", count, lambda weights=weights: weights)  # type: ignore[misc]
        for place, (weights, count) in enumerate(zip(sent, counts, strict=True))
    ]


def flat(weights: Weights) -> NDArray[np.float64]:
    """Return all values in one row."""
    return np.concatenate([values.ravel() for values in weights.values()]).astype(np.float64)


def products(weights: Weights) -> dict[str, NDArray[np.float64]]:
    """Return B·A of every linear in float64, the plain way."""
    return {
        name.removesuffix(A): weights[name.removesuffix(A) + B].astype(np.float64) @ values.astype(np.float64)
        for name, values in weights.items()
        if name.endswith(A)
    }


def cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Return the cosine of the angle between two rows."""
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))
