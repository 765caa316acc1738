"""`ffa` and `fedavg`: the mean of what was sent, weighted by tokens.

Under `ffa` A is frozen and only B is sent. The mean of B_i · A over the nodes is then (mean of B_i) · A: exact
(Sun et al. 2024, "Improving LoRA in Privacy-preserving Federated Learning"). `fedavg` averages A and B each on its own,
which is not the mean of the products; it is here for comparison.
"""

import numpy as np
from numpy.typing import NDArray

from moehub.federation.aggregation.update import Aggregate, Gathered, moved
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import Weights


def mean(gathered: Gathered) -> Aggregate:
    """Return start + Σ share · scale · (update − start), summed in float64; one update is in memory at a time."""
    total = {name: np.zeros(values.shape) for name, values in gathered.start.items()}
    for update, share, scale in zip(gathered.updates, gathered.shares, gathered.scales, strict=True):
        _add(total, change(gathered.start, update.load(), share * scale))
    return Aggregate(moved(gathered.start, total))


def norm(settings: FederationConfig, start: Weights, weights: Weights) -> float:  # noqa: ARG001 (as `product.norm`)
    """Return the Euclidean norm of `weights` − `start` over all values."""
    squares = (np.square(np.subtract(weights[name], values, dtype=np.float64)).sum() for name, values in start.items())
    return float(np.sqrt(sum(squares)))


def change(start: Weights, weights: Weights, factor: float) -> dict[str, NDArray[np.float64]]:
    """Return `factor` · (`weights` − `start`) in float64."""
    return {name: factor * np.subtract(weights[name], values, dtype=np.float64) for name, values in start.items()}


def _add(total: dict[str, NDArray[np.float64]], changes: dict[str, NDArray[np.float64]]) -> None:
    for name, values in changes.items():
        total[name] += values
