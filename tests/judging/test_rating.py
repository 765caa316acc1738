"""Strengths from comparisons."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moehub.errors import ConfigError, DataError
from moehub.judging import battles as reading
from moehub.judging.asking import Winner
from moehub.judging.rating import PRIOR, SCALE, Battle, fit, rate, win_rates


def battles(*told: str) -> list[Battle]:
    """Read `x>y`, `x<y` and `x=y`, each with how often: `x>y*3`."""
    signs: dict[str, Winner] = {">": "a", "<": "b", "=": "tie"}
    found = []
    for one in told:
        games, _, times = one.partition("*")
        found += [Battle(games[0], games[2], signs[games[1]])] * int(times or 1)
    return found


def ratings(games: Sequence[Battle]) -> dict[str, float]:
    return {one.name: one.rating for one in rate(games, resamples=2)}


def test_of_two_models_the_difference_is_that_of_their_odds() -> None:
    """Three wins against one are odds of 3: 400 · log10(3) points, but for the prior's tenth of a game."""
    found = ratings(battles("x>y*300", "x<y*100"))
    assert found["x"] - found["y"] == pytest.approx(400 * math.log10(3), abs=0.1)
    assert found["x"] + found["y"] == pytest.approx(2000)


def test_few_games_are_fitted_as_computed_by_hand() -> None:
    """3 wins of 4 and a prior of 0.1: 3 − 4σ(2t) + 0.1 (½ − σ(t)) = 0 is solved by bisection, x at t and y at −t."""

    def slope(t: float) -> float:
        return 3 - 4 / (1 + math.exp(-2 * t)) + 0.1 * (0.5 - 1 / (1 + math.exp(-t)))

    low, high = 0.0, 5.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    found = ratings(battles("x>y*3", "x<y"))
    assert found["x"] == pytest.approx(1000 + SCALE * low, abs=1e-6)
    assert PRIOR == 0.1


def test_a_tie_is_half_a_win_for_each() -> None:
    """Two ties are worth a win and a loss."""
    tied, won = ratings(battles("x=y*2", "y>z*3", "y<z")), ratings(battles("x>y", "x<y", "y>z*3", "y<z"))
    assert tied == pytest.approx(won)


def test_who_stands_first_decides_nothing() -> None:
    """The same games told the other way round."""
    assert ratings(battles("x>y*2", "y<z")) == pytest.approx(ratings(battles("y<x*2", "z>y")))


def test_strengths_are_found_again() -> None:
    """Of five planted strengths, from 1,500 games of each pair, all are within 25 points and most intervals hold."""
    planted = dict(zip("abcde", (1250.0, 1100.0, 1000.0, 900.0, 750.0), strict=True))
    random, games = np.random.default_rng(3), []
    for (first, strong), (second, weak) in itertools.combinations(planted.items(), 2):
        p = 1 / (1 + 10 ** ((weak - strong) / 400))
        games += [Battle(first, second, "a" if won else "b") for won in random.random(1500) < p]
    found = rate(games)
    assert [one.name for one in found] == list(planted)
    assert all(abs(one.rating - planted[one.name]) < 25 for one in found)
    assert all(one.low < one.rating < one.high for one in found)
    assert sum(one.low < planted[one.name] < one.high for one in found) >= 4


def test_a_model_that_never_lost_has_a_finite_rating() -> None:
    """So do models that never met: the prior ties them to the mean."""
    found = rate(battles("x>y*20", "u>v*20"), resamples=50)
    assert all(math.isfinite(value) for one in found for value in (one.rating, one.low, one.high))
    assert [one.name for one in found[:2]] == ["x", "u"]
    assert found[0].rating == pytest.approx(found[1].rating)


def test_more_games_make_narrower_intervals() -> None:
    """A hundred times the games, about a tenth of the width."""
    few, many = (rate(battles(f"x>y*{6 * times}", f"x<y*{4 * times}"))[0] for times in (10, 1000))
    assert 7 < (few.high - few.low) / (many.high - many.low) < 14


def test_wins_ties_and_losses_are_counted() -> None:
    """Of both sides."""
    found = {one.name: (one.wins, one.ties, one.losses) for one in rate(battles("x>y*2", "y=x", "z>x"), resamples=2)}
    assert found == {"x": (2, 1, 1), "y": (0, 1, 2), "z": (1, 0, 0)}


def test_elo_moves_both_models_after_each_game() -> None:
    """The first win of equals is worth half of k = 16, and the second a little less."""
    found = {one.name: one.rating for one in rate(battles("x>y*2"), method="elo", resamples=2)}
    second = 16 * (1 - 1 / (1 + 10 ** (-16 / 400)))
    assert found["x"] == pytest.approx(1000 + 8 + second)
    assert found["x"] + found["y"] == pytest.approx(2000)


def test_elo_has_intervals_of_the_same_games_drawn_again() -> None:
    """They hold the rating where it has settled."""
    found = rate(battles("x>y*3", "x<y") * 200, method="elo", resamples=200)[0]
    assert found.low < found.rating < found.high


def test_win_rates_are_of_those_who_met() -> None:
    """A tie is half a win; models that never met have no rate."""
    found = win_rates(battles("x>y", "x=y", "y>z"))
    assert found == {"x": {"y": 0.75}, "y": {"x": 0.25, "z": 1.0}, "z": {"y": 0.0}}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=4, max_size=4))
def test_the_fit_is_where_the_likelihood_does_not_rise(table: list[list[int]]) -> None:
    """Whatever the games, undefeated and unconnected models included, the slope is zero."""
    wins = np.array(table, dtype=float)
    np.fill_diagonal(wins, 0)
    theta = fit(wins[None])[0]
    games = wins + wins.T
    expected = games / (1 + np.exp(theta[None, :] - theta[:, None]))
    slope = (wins - expected).sum(1) + PRIOR * (0.5 - 1 / (1 + np.exp(-theta)))
    assert np.abs(slope).max() < 1e-6


def test_what_cannot_be_rated_is_refused() -> None:
    """No games, a game against oneself, an unknown method."""
    with pytest.raises(DataError, match="no comparisons"):
        rate([])
    with pytest.raises(DataError, match="'x' is compared with itself"):
        rate(battles("x>x"))
    with pytest.raises(ConfigError, match="expected bradley-terry or elo"):
        rate(battles("x>y"), method="glicko")  # type: ignore[arg-type]  # what a person may write


def test_comparisons_are_read_with_winners_by_place_or_name(tmp_path: Path) -> None:
    """`a`, `b`, `tie`, or the name of one of the two."""
    file = tmp_path / "battles.jsonl"
    file.write_text(
        '{"a": "x", "b": "y", "winner": "a"}\n{"a": "x", "b": "y", "winner": "y"}\n'
        '{"a": "y", "b": "x", "winner": "tie", "judge": "z"}\n'
    )
    assert reading.read([file]) == battles("x>y", "x<y", "y=x")


def test_what_is_no_comparison_is_named_with_its_line(tmp_path: Path) -> None:
    """All of them at once."""
    file = tmp_path / "battles.jsonl"
    file.write_text(
        '{"a": "x", "b": "y", "winner": "both"}\n{"a": "x", "winner": "a"}\n{"a": "x", "b": "x", "winner": "a"}\n{'
    )
    with pytest.raises(DataError) as caught:
        reading.read([file])
    said = str(caught.value)
    assert "4 record(s)" in said
    assert "line 1 has winner = 'both', expected a, b, tie, 'x' or 'y'" in said
    assert "line 2 has no a, b and winner" in said
    assert "line 3 compares 'x' with itself" in said
    assert "line 4 is no JSON" in said
