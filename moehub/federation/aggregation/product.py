"""`product`: the exact mean of the nodes' products B·A, brought back to the federation's rank.

The sum Σ w_i B_i A_i is [w_1 B_1, w_2 B_2, …] · [A_1; A_2; …]: stacks of factors, never a matrix of d_out × d_in. QR
of both stacks and an SVD of the small core give its singular values; the largest `rank` are kept as balanced factors
U√S and √S Vᵀ, by Eckart–Young the best of that rank. Ranks may differ between nodes, because all share the scale
alpha / rank of the adapter's output: a node of rank r_i trains with alpha · r_i / rank, so the scale drops out.

A change that is clipped by c moves the product to start + c · (B·A − start), which is [c·B, (1−c)·B_0] · [A; A_0]: over
all nodes the start comes in once more, with the weight that was taken from them.
"""

import numpy as np
from numpy.typing import NDArray

from moehub.federation.aggregation.update import Aggregate, Gathered
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import A, B, Weights

_KEPT = 256
"""Columns that a stack is compressed to, once it has twice as many."""
_NOTHING = 1e-6
"""A singular value below this share of the largest is rounding."""

Factor = NDArray[np.floating]


class Sum:
    """A sum of products of one linear, as factors of few columns: flat in the number of summands.

    It is exact as long as the summands' ranks together are at most twice `kept`, or the sum's rank at most `kept`.
    """

    def __init__(self, outputs: int, inputs: int, rank: int) -> None:
        self.left = np.zeros((outputs, 0), np.float32)
        self.right = np.zeros((0, inputs), np.float32)
        self.kept = min(max(_KEPT, 2 * rank), outputs, inputs)
        self.cut = 0.0
        """Squared singular values that were cut off so far."""

    def add(self, weight: float, left: Factor, right: Factor) -> None:
        """Add weight · left · right; [d_out, r] and [r, d_in]."""
        self.left = np.hstack([self.left, (weight * left).astype(np.float32)])
        self.right = np.vstack([self.right, right])
        if len(self.right) > 2 * self.kept:
            self.left, self.right, _ = self.factors(self.kept)

    def factors(self, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
        """Return balanced factors of at most this rank, and the squared singular values in them; note what is cut."""
        u, s, vt = _svd(self.left, self.right)
        self.cut += float(np.square(s[rank:]).sum())
        s = s[:rank][s[:rank] > _NOTHING * s.max(initial=0.0)]
        root = np.sqrt(s)
        left, right = u[:, : len(s)] * root, root[:, None] * vt[: len(s)]
        return left.astype(np.float32), right.astype(np.float32), float(np.square(s).sum())


def product(gathered: Gathered) -> Aggregate:
    """Return Σ share · (B_i · A_i, clipped) at the federation's rank; one update is in memory at a time."""
    start, rank = gathered.start, gathered.settings.train.rank
    linears = [name.removesuffix(A) for name in start if name.endswith(A)]
    sums = {name: Sum(start[name + B].shape[0], start[name + A].shape[1], rank) for name in linears}
    for update, share, scale in zip(gathered.updates, gathered.shares, gathered.scales, strict=True):
        _add(sums, share * scale, update.load())
    back = sum(share * (1 - scale) for share, scale in zip(gathered.shares, gathered.scales, strict=True))
    if back:
        _add(sums, back, start)
    weights: Weights = {}
    energy = 0.0
    for name, each in sums.items():
        weights[name + A], weights[name + B], kept = _at_rank(each, start[name + A])
        energy += kept
    cut = sum(each.cut for each in sums.values())
    return Aggregate({name: weights[name] for name in start}, discarded=cut / (cut + energy) if cut else 0.0)


def norm(settings: FederationConfig, start: Weights, weights: Weights) -> float:
    """Return the norm of the change of alpha / rank · B·A over all linears, from Gram matrices of the factors."""
    squares = 0.0
    for name in start:
        if name.endswith(A):
            b = name.removesuffix(A) + B
            left = np.hstack([weights[b], -start[b]]).astype(np.float64)
            right = np.vstack([weights[name], start[name]]).astype(np.float64)
            squares += max(0.0, float(np.sum((left.T @ left) * (right @ right.T))))
    return settings.train.alpha / settings.train.rank * float(np.sqrt(squares))


def _add(sums: dict[str, Sum], weight: float, weights: Weights) -> None:
    for name, each in sums.items():
        each.add(weight, weights[name + B], weights[name + A])


def _at_rank(each: Sum, spare: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Return A and B of the rank of `spare`, and their energy.

    Where the sum has a smaller rank, the rest of A is that of `spare` beside zeros in B: the product is the same, and
    training can use the direction, which it could not if both were zero.
    """
    left, right, energy = each.factors(len(spare))
    b = np.zeros((len(left), len(spare)), np.float32)
    b[:, : left.shape[1]] = left
    return np.vstack([right, spare[len(right) :]]), b, energy


def _svd(left: Factor, right: Factor) -> tuple[Factor, Factor, Factor]:
    """Return U, S, Vᵀ of left · right; the largest entry of each column of U is positive."""
    q_left, r_left = np.linalg.qr(left.astype(np.float64))
    q_right, r_right = np.linalg.qr(right.T.astype(np.float64))
    core_u, s, core_vt = np.linalg.svd(r_left @ r_right.T, full_matrices=False)
    u, vt = q_left @ core_u, core_vt @ q_right.T
    signs = np.where(np.take_along_axis(u, np.abs(u).argmax(axis=0)[None], axis=0)[0] < 0, -1.0, 1.0)
    return u * signs, s, vt * signs[:, None]
