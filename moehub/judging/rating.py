"""Strengths from comparisons, as Elo numbers: the best fit to all of them at once, or one after another.

* **Bradley–Terry**: P(i beats j) = σ(θ_i − θ_j), the θ of greatest likelihood, a tie counted as half a win for each
  (Bradley and Terry, Rank Analysis of Incomplete Block Designs, 1952; Hunter, MM Algorithms for Generalized
  Bradley–Terry Models, 2004, on when there is one). A model that never lost has none. So each also played `PRIOR` of a
  game against an average opponent, half of it won: too little to be seen where there are games, and enough that all
  numbers are finite. It is found by Newton's method; the likelihood is concave.
* **Elo**: after each game R_a += k (S − E), E = 1 / (1 + 10^((R_b − R_a) / 400)) (Elo, The Rating of Chessplayers,
  1978). It depends on the order of the games, and forgets: of models, which do not change, it says less.

Both are on Elo's scale, 400 / ln 10 to a unit of θ, with the mean of all models at 1000. Intervals are percentiles over
comparisons that are drawn again with replacement.

Shapes: M models, N comparisons, O different outcomes, R resamples.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moehub.errors import ConfigError, DataError
from moehub.judging.asking import Winner

Method = Literal["bradley-terry", "elo"]
METHODS: tuple[Method, ...] = ("bradley-terry", "elo")
PRIOR = 0.1
"""Games of each model against an average opponent."""
MEAN = 1000.0
SCALE = 400 / math.log(10)
"""Elo points for a unit of θ."""
STEP = 16.0
"""k of Elo: the points that a game is about."""
RESAMPLES = 1000
_SCORES: Mapping[Winner, float] = {"a": 1.0, "tie": 0.5, "b": 0.0}
_NEWTON_STEPS, _NEAR = 200, 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Battle:
    """One comparison of two models."""

    a: str
    b: str
    winner: Winner


@dataclass(frozen=True)
class Rating:
    """What a model is worth."""

    name: str
    rating: float
    """Elo points; the mean of all models is 1000."""
    low: float
    """Of the 95 % interval."""
    high: float
    wins: int
    ties: int
    losses: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return asdict(self)


def rate(
    battles: Sequence[Battle], *, method: Method = "bradley-terry", resamples: int = RESAMPLES, seed: int = 0
) -> list[Rating]:
    """Return the models, the strongest first.

    Raises:
        DataError: there is no comparison, or one of a model with itself.
        ConfigError: the method is unknown.
    """
    if method not in METHODS:
        raise ConfigError(f"the method {method!r} of rating is unknown, expected {' or '.join(METHODS)}")
    names, random = models(battles), np.random.default_rng(seed)
    way = _bradley_terry if method == "bradley-terry" else _elo
    point, drawn_RM = way(battles, names, resamples, random)
    low, high = np.quantile(drawn_RM, (0.025, 0.975), axis=0)
    counts = _counts(battles)
    found = [
        Rating(name, float(point[number]), float(low[number]), float(high[number]), *counts[name])
        for number, name in enumerate(names)
    ]
    return sorted(found, key=lambda one: -one.rating)


def models(battles: Sequence[Battle]) -> list[str]:
    """Return the names of all models, in the order in which they appear.

    Raises:
        DataError: there is no comparison, or one of a model with itself.
    """
    if not battles:
        raise DataError("there are no comparisons to rate models by, expected at least one")
    same = next((one for one in battles if one.a == one.b), None)
    if same is not None:
        raise DataError(f"{same.a!r} is compared with itself, expected two models: remove that comparison")
    return list(dict.fromkeys(name for one in battles for name in (one.a, one.b)))


def win_rates(battles: Sequence[Battle]) -> dict[str, dict[str, float]]:
    """Return model → opponent → the share of their comparisons that it won, a tie as half; only of those who met."""
    won: dict[tuple[str, str], list[float]] = {}
    for one in battles:
        won.setdefault((one.a, one.b), []).append(_SCORES[one.winner])
        won.setdefault((one.b, one.a), []).append(1 - _SCORES[one.winner])
    names = models(battles)
    return {name: {other: sum(met) / len(met) for other in names if (met := won.get((name, other)))} for name in names}


def _counts(battles: Sequence[Battle]) -> dict[str, tuple[int, int, int]]:
    """Return wins, ties and losses of each model."""
    counts: dict[str, list[int]] = {}
    for one in battles:
        place = {"a": 0, "tie": 1, "b": 2}[one.winner]
        counts.setdefault(one.a, [0, 0, 0])[place] += 1
        counts.setdefault(one.b, [0, 0, 0])[2 - place] += 1
    return {name: (wins, ties, losses) for name, (wins, ties, losses) in counts.items()}


def _bradley_terry(
    battles: Sequence[Battle], names: Sequence[str], resamples: int, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the ratings that fit best [M], and those of each resample [R, M]."""
    outcomes = Counter(battles)
    counts_O = np.array(list(outcomes.values()))
    drawn_RO = random.multinomial(len(battles), counts_O / len(battles), size=resamples)
    counts_RO = np.concatenate([counts_O[None], drawn_RO]).astype(float)
    theta_RM = fit(_wins(list(outcomes), counts_RO, names))
    ratings_RM = MEAN + SCALE * (theta_RM - theta_RM.mean(1, keepdims=True))
    return ratings_RM[0], ratings_RM[1:]


def _wins(outcomes: Sequence[Battle], counts_RO: Floats, names: Sequence[str]) -> Floats:
    """Return how often each model beat each other [R, M, M], ties as half, from how often each outcome came [R, O]."""
    numbers = {name: number for number, name in enumerate(names)}
    wins_RMM = np.zeros((len(counts_RO), len(names), len(names)))
    for one, counts_R in zip(outcomes, counts_RO.T, strict=True):
        a, b, score = numbers[one.a], numbers[one.b], _SCORES[one.winner]
        wins_RMM[:, a, b] += score * counts_R
        wins_RMM[:, b, a] += (1 - score) * counts_R
    return wins_RMM


def fit(wins_RMM: Floats, *, prior: float = PRIOR) -> Floats:
    """Return θ [R, M] of the greatest likelihood of each table of wins, with the prior's games.

    The gradient is w_i − Σ_j n_ij σ(θ_i − θ_j) and the curvature that of logistic regression. A step that would move a
    strength by more than 1 is shortened to 1, so that none overshoots.
    """
    games_RMM = wins_RMM + wins_RMM.transpose(0, 2, 1)
    theta_RM = np.zeros(wins_RMM.shape[:2])
    diagonal = np.arange(wins_RMM.shape[1])
    for _ in range(_NEWTON_STEPS):
        p_RMM = _sigmoid(theta_RM[:, :, None] - theta_RM[:, None, :])
        p_RM = _sigmoid(theta_RM)
        slope_RM = (wins_RMM - games_RMM * p_RMM).sum(2) + prior * (0.5 - p_RM)
        if np.abs(slope_RM).max() < _NEAR:
            break
        bend_RMM = -games_RMM * p_RMM * (1 - p_RMM)
        bend_RMM[:, diagonal, diagonal] = prior * p_RM * (1 - p_RM) - bend_RMM.sum(2)
        step_RM = np.linalg.solve(bend_RMM, slope_RM[..., None])[..., 0]
        theta_RM += step_RM / np.maximum(1, np.abs(step_RM).max(1, keepdims=True))
    return theta_RM


def _sigmoid(x: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(x / 2))


def _elo(
    battles: Sequence[Battle], names: Sequence[str], resamples: int, random: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the ratings after all comparisons [M], and after those of each resample, in their order [R, M]."""
    numbers = {name: number for number, name in enumerate(names)}
    pairs_N2 = np.array([(numbers[one.a], numbers[one.b]) for one in battles])
    scores_N = np.array([_SCORES[one.winner] for one in battles])
    drawn_RN = np.sort(random.integers(len(battles), size=(resamples, len(battles)), dtype=np.int32), axis=1)
    order = np.arange(len(battles), dtype=np.int32)[None]
    ratings_RM = _played(pairs_N2, scores_N, np.concatenate([order, drawn_RN]), len(names))
    return ratings_RM[0], ratings_RM[1:]


def _played(
    pairs_N2: NDArray[np.int64], scores_N: Floats, chosen_RN: NDArray[np.int32], count: int
) -> NDArray[np.float64]:
    """Return the ratings [R, M] after the chosen comparisons, one after another."""
    ratings_RM = np.full((len(chosen_RN), count), MEAN)
    rows = np.arange(len(chosen_RN))
    for chosen_R in chosen_RN.T:
        a, b = pairs_N2[chosen_R].T
        expected = _sigmoid((ratings_RM[rows, a] - ratings_RM[rows, b]) / SCALE)
        change = STEP * (scores_N[chosen_R] - expected)
        ratings_RM[rows, a] += change
        ratings_RM[rows, b] -= change
    return ratings_RM
