"""What a judge is asked, and what its answers are worth."""

import pytest

from moehub.chat import Message
from moehub.judging.asking import EQUAL, Comparison, about_two, bias, compare, rate
from tests.judging.opinions import Opinionated, by_length, shown, text_of, the_first


def test_both_orders_are_asked_and_agreement_is_the_verdict() -> None:
    """The longer answer wins, wherever it stands."""
    judge = Opinionated(believes=by_length)
    found = compare(judge, [("why", "because", "so"), ("why", "so", "because")])
    assert [one.winner for one in found] == ["a", "b"]
    assert [shown(one) for one in judge.asked[:2]] == [("because", "so"), ("so", "because")]
    assert found[0] == Comparison(0.9, 0.2)
    assert found[0].preference == pytest.approx(0.85)


def test_a_judge_who_is_led_by_places_decides_nothing() -> None:
    """Every verdict is a tie, and the bias says why."""
    found = compare(Opinionated(believes=the_first), [("why", "because", "so")] * 3)
    assert {one.winner for one in found} == {"tie"}
    measured = bias(found)
    assert measured is not None
    assert measured.towards_first == pytest.approx(0.3)
    assert measured.decided == 1.0


def test_a_fair_judge_has_no_bias() -> None:
    """What it says of the first in one order it says of the second in the other."""
    measured = bias([Comparison(0.9, 0.1), Comparison(0.3, 0.7)])
    assert measured is not None
    assert measured.towards_first == pytest.approx(0)
    assert measured.decided == 0
    assert bias([]) is None
    assert bias([EQUAL]) is None


@pytest.mark.parametrize(("said", "winner"), [((0.9, 0.9), "tie"), ((0.5, 0.1), "tie"), ((0.6, 0.5), "tie")])
def test_half_is_no_preference(said: tuple[float, float], winner: str) -> None:
    """One half in either order is a tie."""
    assert Comparison(*said).winner == winner


def test_equal_answers_are_a_tie_that_nobody_is_asked_about() -> None:
    """The others keep their places."""
    judge = Opinionated()
    found = compare(judge, [("why", "so", "so"), ("why", "because", "so"), ("why", "x", "x")])
    assert [one.winner for one in found] == ["tie", "a", "tie"]
    assert len(judge.asked) == 2


def test_an_answer_is_shown_with_its_request_and_the_question() -> None:
    """Of several turns each has its role."""
    judge = Opinionated(believes=lambda text: 0.7 if "Is it kind?" in text else 0.0)
    prompt = (Message("system", "Be kind."), Message("user", "Hello {you}"))
    assert rate(judge, "Is it kind?", [(prompt, "Good day")]) == [0.7]
    assert "System: Be kind.\n\nUser: Hello {you}" in judge.asked[0]
    assert shown(judge.asked[0]) == ("Good day",)


def test_a_question_says_what_makes_an_answer_good() -> None:
    """It stands in what the judge reads; without one nothing stands there."""
    assert "Is it short?" in text_of(about_two("why", "x", "y", "Is it short?"))
    assert "good is" not in text_of(about_two("why", "x", "y", None))
