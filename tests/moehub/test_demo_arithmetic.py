"""The exercises: true, varied, and the same for the same seed."""

import re
from fractions import Fraction
from itertools import islice

import pytest

from moehub.demo import arithmetic

SHEETS = "".join(islice(arithmetic.documents(7), 400))
_EXPRESSION = r"[\d(][\d+\-*/() ]*"
_EQUATION = re.compile(rf"(?<![\dx])({_EXPRESSION}(?: = {_EXPRESSION})+)")


def value(expression: str) -> Fraction:
    """The exact value of an expression of whole numbers."""
    return Fraction(eval(re.sub(r"(\d+)", r"Fraction(\1)", expression), {"Fraction": Fraction}))  # noqa: S307


def test_every_equation_holds() -> None:
    """Both sides of every equality sign between numbers have the same value, exactly."""
    equations = _EQUATION.findall(re.sub(r"Solve .*: ", "", SHEETS))
    assert len(equations) > 4000
    for equation in equations:
        sides = [value(side.strip()) for side in equation.split(" = ")]
        assert len(set(sides)) == 1, equation


def test_every_solution_of_an_equation_solves_it() -> None:
    """`Solve ax + b = c` ends in the x that does it."""
    solved = re.findall(r"Solve (\d+)x \+ (\d+) = (\d+): .*so x = .* = (\d+)\.", SHEETS)
    assert len(solved) > 100
    assert all(int(a) * int(x) + int(b) == int(c) for a, b, c, x in solved)


def test_every_percentage_is_right() -> None:
    """`p% of n is … = r` holds exactly."""
    found = re.findall(r"(\d+)% of (\d+) is .* = (\d+)\n", SHEETS)
    assert len(found) > 100
    assert all(int(share) * int(whole) == 100 * int(result) for share, whole, result in found)


def test_remainders_are_smaller_than_divisors() -> None:
    """Division with remainder gives quotient and remainder as schools do."""
    found = re.findall(r"(\d+) divided by (\d+) is (\d+) with remainder (\d+)", SHEETS)
    assert len(found) > 100
    assert all(divmod(int(total), int(by)) == (int(quotient), int(rest)) for total, by, quotient, rest in found)


@pytest.mark.parametrize("question", ["are left", "is that", "change", "each friend", "How far"])
def test_every_kind_of_problem_occurs_with_its_answer(question: str) -> None:
    """A question is followed by its answer on the next line."""
    assert re.search(rf"Question: .*{question}.*\nAnswer: \d", SHEETS)


def test_the_seed_decides() -> None:
    """The same seed gives the same sheets, another seed others."""
    assert list(islice(arithmetic.documents(1), 5)) == list(islice(arithmetic.documents(1), 5))
    assert next(arithmetic.documents(1)) != next(arithmetic.documents(2))


def test_exercises_hardly_repeat() -> None:
    """There is enough variety that what is held out was not learned by heart."""
    problems = re.findall(r"Question: .*", SHEETS)
    assert len(set(problems)) > 0.9 * len(problems)
