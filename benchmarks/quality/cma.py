"""Search without gradients: the covariance matrix adaptation evolution strategy.

Written from Hansen 2016, "The CMA Evolution Strategy: A Tutorial", figure 6 and table 1, for want of a library that
has it. Candidates beyond the bounds are moved onto them.

Shapes: N dimensions, L candidates of a generation, M parents.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

Vector: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]


def minimise(
    loss: Callable[[Vector], float],
    start: Vector,
    *,
    sigma: float,
    bound: float,
    evaluations: int,
    generator: np.random.Generator,
) -> Vector:
    """Return the best point [N] of all that were tried, the start among them.

    Args:
        loss: what is to be small.
        start: the first mean, [N].
        sigma: the first step size.
        bound: no coordinate is larger in magnitude.
        evaluations: how often the loss may be asked for.
        generator: what the candidates are drawn with.
    """
    best, least, left = start, loss(start), evaluations - 1
    strategy = Strategy(start, sigma)
    while left > 0:
        candidates = strategy.draw(generator).clip(-bound, bound)[:left]
        losses = np.array([loss(one) for one in candidates])
        left -= len(candidates)
        if losses.min() < least:
            best, least = candidates[losses.argmin()], losses.min()
        if len(candidates) == strategy.candidates:
            strategy.learn(candidates[losses.argsort()])
    return best


class Strategy:
    """Mean, step size and covariance of the candidates."""

    def __init__(self, mean: Vector, sigma: float) -> None:
        """Begin with a sphere; the constants are those of the tutorial's table 1, without negative weights."""
        size = len(mean)
        self.mean, self.sigma, self.generation = mean.astype(float), sigma, 0
        self.candidates = 4 + math.floor(3 * math.log(size))
        weights = math.log((self.candidates + 1) / 2) - np.log(np.arange(1, self.candidates // 2 + 1))
        self.weights = weights / weights.sum()
        effective = 1 / float(np.square(self.weights).sum())
        self.effective = effective
        self.c_sigma = (effective + 2) / (size + effective + 5)
        self.damping = 1 + 2 * max(0.0, math.sqrt((effective - 1) / (size + 1)) - 1) + self.c_sigma
        self.c_path = (4 + effective / size) / (size + 4 + 2 * effective / size)
        self.c_one = 2 / ((size + 1.3) ** 2 + effective)
        self.c_mu = min(1 - self.c_one, 2 * (effective - 2 + 1 / effective) / ((size + 2) ** 2 + effective))
        self.expected = math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size**2))
        self.covariance = np.eye(size)
        self.path, self.path_sigma = np.zeros(size), np.zeros(size)

    def draw(self, generator: np.random.Generator) -> Vector:
        """Return the candidates of a generation, [L, N]."""
        values, vectors = np.linalg.eigh(self.covariance)
        normal = generator.standard_normal((self.candidates, len(self.mean)))
        return self.mean + self.sigma * (normal * np.sqrt(values.clip(1e-20))) @ vectors.T

    def learn(self, ordered: Vector) -> None:
        """Move towards the best of a generation's candidates [L, N], the best first."""
        self.generation += 1
        steps = (ordered[: len(self.weights)] - self.mean) / self.sigma
        step = self.weights @ steps
        self.mean = self.mean + self.sigma * step
        values, vectors = np.linalg.eigh(self.covariance)
        white = vectors @ ((vectors.T @ step) / np.sqrt(values.clip(1e-20)))
        rate = self.c_sigma
        self.path_sigma = (1 - rate) * self.path_sigma + math.sqrt(rate * (2 - rate) * self.effective) * white
        length = float(np.linalg.norm(self.path_sigma))
        unbiased = length / math.sqrt(1 - (1 - rate) ** (2 * self.generation))
        going = float(unbiased < (1.4 + 2 / (len(step) + 1)) * self.expected)
        rate = self.c_path
        self.path = (1 - rate) * self.path + going * math.sqrt(rate * (2 - rate) * self.effective) * step
        missing = (1 - going) * rate * (2 - rate)
        self.covariance = (
            (1 - self.c_one - self.c_mu + self.c_one * missing) * self.covariance
            + self.c_one * np.outer(self.path, self.path)
            + self.c_mu * (steps.T * self.weights) @ steps
        )
        self.sigma *= math.exp(self.c_sigma / self.damping * (length / self.expected - 1))
