"""How far two judges agree."""

import pytest

from moehub.judging.agreement import agreement, kappa


def test_kappa_is_that_of_the_textbook() -> None:
    """20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 0.7, p_e = 0.5 · 0.6 + 0.5 · 0.4 = 0.5, so κ = 0.4."""
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement(one, other)
    assert found is not None
    assert found.items == 50
    assert found.raw == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert found.low is not None
    assert found.high is not None
    assert 0.1 < found.low < 0.4 < found.high < 0.7


def test_three_verdicts_are_weighed_alike() -> None:
    """Computed by hand: p_o = 4/6, p_e = (2·2 + 2·3 + 2·1)/36 = 1/3."""
    assert kappa([1, 1, 2, 2, 3, 3], [1, 2, 2, 2, 3, 1]) == pytest.approx((4 / 6 - 1 / 3) / (1 - 1 / 3))


def test_full_agreement_is_one_and_full_contradiction_below_zero() -> None:
    """The ends of the scale."""
    assert kappa(["a", "b", "tie"], ["a", "b", "tie"]) == pytest.approx(1)
    assert kappa([True, False], [False, True]) == pytest.approx(-1)


def test_judges_of_one_verdict_have_no_kappa() -> None:
    """Chance explains that they agree, and nothing is left to measure."""
    found = agreement([True] * 5, [True] * 5)
    assert found is not None
    assert (found.raw, found.kappa, found.low) == (1.0, None, None)


def test_a_judge_who_always_says_yes_agrees_by_chance_alone() -> None:
    """Nine of ten agree, and κ is 0."""
    assert kappa([True] * 10, [True] * 9 + [False]) == pytest.approx(0)


def test_nothing_to_compare_has_no_agreement() -> None:
    """No item, no number."""
    assert agreement([], []) is None


def test_more_items_make_a_narrower_interval() -> None:
    """A hundred times the items, about a tenth of the width; equal seeds give equal bits."""
    one, other = ["a", "a", "b", "b", "a"] * 8, ["a", "b", "b", "b", "a"] * 8
    few, many = agreement(one, other), agreement(one * 100, other * 100)
    assert few is not None
    assert many is not None
    assert few == agreement(one, other)
    ratio = (few.high - few.low) / (many.high - many.low)  # type: ignore[operator]  # kappa is defined here
    assert 6 < ratio < 16
