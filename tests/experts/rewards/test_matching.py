import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moehub.experts.rewards.matching import as_number, matches, plain, proper


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("#### 42", "42"),
        ("6 * 7 = 42\n#### 42", "Six sevens.\n#### 42".rpartition("#### ")[2]),
        ("The answer is 42.", 42),
        ("So it is 41 + 1 = 42 apples.", "42"),
        ("The answer is: $1,234,567.50", "1234567.5"),
        ("Answer: 1'234'567", "1234567"),
        ("1 234 567", 1234567),
        (r"Hence \boxed{\frac{3}{4}}", "3/4"),
        (r"Hence $\boxed{-\dfrac{1}{2}}$.", "-1/2"),
        (r"\boxed{1,000\text{ km}}", "1000"),
        ("It is 3/4.", "0.75"),
        ("1 1/2 cups", "1.5"),
        ("50%", "50"),
        ("50 percent", "0.5"),
        ("0.5", "50%"),
        ("The answer is −7", "-7"),
        ("x = -7", "-7"),
        ("10 - 3 = 7", "7"),
        ("10-3=7", "7"),
        (".5", "0.5"),
        ("1e3", "1000"),
        ("42 km", "42 km/h"),
        ("42 dogs", "42 dogs"),
        ("The answer is **42**.", "42"),
        ("First 41. No: the answer is 42. It is not 43.", "42"),
        ("B", "B"),
        ("(b)", "B"),
        ("B) Paris", "B"),
        ("The answer is (B).", "(B)"),
        ("Answer: B. Paris", "B"),
        ("The correct option is B", "b"),
        (r"\boxed{C}", "C"),
        ("Paris.", "paris"),
        ("The answer is: “New  York”", "new york"),
        ("Long thoughts.\n\n**Paris**", "Paris"),
        ("Straße", "STRASSE"),
        ("yes", "Yes"),
        ("Rome", ["Paris", "Rome"]),
        ("7", [6, 7]),
    ],
)
def test_right_however_it_is_written(answer: str, expected: object) -> None:
    """GSM8K's mark, LaTeX, separators, fractions, percent, units, choices and texts."""
    assert matches(answer, expected)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", "42"),
        ("no number", "42"),
        ("#### 43", "42"),
        ("42 is wrong, so the answer is 43", "42"),
        ("42 and 43", "42"),
        ("420", "42"),
        ("4.2", "42"),
        ("-42", "42"),
        ("1/3", "0.33"),
        ("5%", "50"),
        ("1/0", "0"),
        ("1" * 500, "42"),
        ("1e999999999", "42"),
        ("A", "B"),
        ("Because A is wrong", "B"),
        ("An apple", "A"),
        ("London", "Paris"),
        ("not Paris", "Paris"),
        ("Parisian", "Paris"),
        ("", "Paris"),
    ],
)
def test_wrong_is_wrong(answer: str, expected: str) -> None:
    """Also where parts of it look right."""
    assert not matches(answer, expected)


def test_a_text_may_stand_in_a_sentence_if_that_is_asked_for() -> None:
    """As whole words."""
    assert matches("I think it is Paris, in France.", "Paris", anywhere=True)
    assert not matches("I think it is Parisian.", "Paris", anywhere=True)


def test_numbers_may_be_off_by_a_share() -> None:
    """Of the expected one."""
    assert matches("3.14", "3.1416", tolerance=0.001)
    assert not matches("3.1", "3.1416", tolerance=0.001)


@given(st.integers(-(10**15), 10**15), st.sampled_from(["{:,}", "{}", "#### {:,}", "The answer is ${:,}.", "{} km"]))
def test_a_number_is_found_in_every_form(number: int, form: str) -> None:
    """Round trip through how people write it."""
    assert matches(form.format(number), str(number))
    assert not matches(form.format(number), str(number + 1))


@given(st.text(max_size=200), st.text(min_size=1, max_size=50))
def test_no_text_breaks_it(answer: str, expected: str) -> None:
    """Models write anything."""
    assert matches(answer, expected) in {True, False}
    assert isinstance(proper(answer)[0], str)


@given(st.text(max_size=100))
def test_what_is_plain_stays_plain(text: str) -> None:
    """Twice is as good as once."""
    once = plain(text)
    assert plain(once.casefold()) == plain(plain(once))


def test_what_is_a_number_as_a_whole() -> None:
    """With a unit after it, and nothing before it."""
    assert [as_number(text) and as_number(text).value for text in ("1/2", "12 km", "about 12", "v2", "")] == [  # type: ignore[union-attr]
        Fraction(1, 2), Fraction(12), None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text", ["1" * 20000, "1," * 10000, "(" * 20000, "1 " * 10000, "\\boxed{" * 5000, "answer is " * 5000]
)
def test_long_answers_are_quick(text: str) -> None:
    """No expression takes more than its share of time."""
    started = time.perf_counter()
    matches(text, "42")
    matches("42", text)
    assert time.perf_counter() - started < 2
