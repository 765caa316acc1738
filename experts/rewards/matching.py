r"""Whether an answer is the expected one, however it is written.

The answer proper is looked for in this order: the last `\boxed{…}`, what follows the last `####`, what follows the
last "answer is" or "answer:", else the last line. If a number is expected, numbers are compared: thousands separators,
signs, currencies, fractions, LaTeX, percent and units do not matter; without a mark, the last number of the answer
counts. If a letter is expected, it is a choice. Everything else is compared as text without case, spaces and marks.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import TypeAlias

Expected: TypeAlias = "str | float | Sequence[str | float]"
"""An answer, or several of which each is right."""

_FIGURES = r"(?:\d{1,3}(?:[,'  ]\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w.)\]])[-+−])? ?[$€£¥]? ?(?:(?P<whole>\d+)\s+(?=\d+\s*/\s*\d))?"
    rf"(?P<value>{_FIGURES})(?:\s*/\s*(?P<under>{_FIGURES}))?\s*(?P<percent>\\?%|percent\b|per cent\b)?"
)
_LATEX = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_UNIT = re.compile(r"[\s\\]*[A-Za-z°µ²³$€£¥^/().\s]{0,30}\.?")
_MARK = re.compile(r"(?:final\s+)?answer\s*(?:is|:|=)\s*:?", re.IGNORECASE)
_CHOICE = re.compile(
    r"(?:(?:the|option|choice|answer|is|correct)\s+)*[\s(\[*\"'$]*([A-Za-z])(?:[)\].:,*\"'$]|\s|$)", re.IGNORECASE
)
_AROUND = " \t\n.,;:!?\"'`*_$()[]{}“”‘’«»"


@dataclass(frozen=True)
class Number:
    """A number as it was written."""

    value: Fraction
    percent: bool

    def equals(self, other: "Number", tolerance: Fraction = Fraction()) -> bool:
        """Return whether two numbers are the same, within a share of the other; 50 % is 0.5, and passes for 50."""
        mine = {self.value / 100, self.value} if self.percent and not other.percent else {self.value}
        theirs = {other.value / 100, other.value} if other.percent and not self.percent else {other.value}
        return any(abs(one - two) <= tolerance * abs(two) for one in mine for two in theirs)


def matches(answer: str, expected: Expected, *, tolerance: float = 0.0, anywhere: bool = False) -> bool:
    """Return whether an answer is right.

    `tolerance` is the share by which a number may be off; with `anywhere`, a text may stand among others in the
    answer proper.
    """
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        return any(matches(answer, one, tolerance=tolerance, anywhere=anywhere) for one in expected)
    wanted, (final, marked) = str(expected).strip(), proper(answer)
    number = as_number(wanted)
    if number is not None:
        found = numbers(final if marked else answer)
        return bool(found) and found[0 if marked else -1].equals(number, Fraction(tolerance))
    if re.fullmatch(r"\(?[A-Za-z]\)?\.?", wanted):
        choice = _CHOICE.match(" ".join(final.split()))
        return choice is not None and choice[1].casefold() == wanted.strip("().").casefold()
    goal = plain(wanted)
    if anywhere:
        return re.search(rf"(?<!\w){re.escape(goal)}(?!\w)", plain(final)) is not None
    return goal in {plain(final), plain(answer)}


def proper(answer: str) -> tuple[str, bool]:
    """Return the answer proper, and whether a mark said where it is."""
    boxed = _boxed(answer)
    if boxed is not None:
        return boxed, True
    for place in (answer.rfind("####") + 4, max((mark.end() for mark in _MARK.finditer(answer)), default=3)):
        following = answer[place:].strip() if place > 3 else ""
        if following:
            return following.splitlines()[0].strip(), True
    lines = answer.strip().splitlines()
    return (lines[-1].strip() if lines else ""), False


def _boxed(answer: str) -> str | None:
    r"""Return what the last \boxed{…} holds, or None."""
    _, mark, rest = answer.rpartition("\\boxed{")
    depth = 1
    for index, character in enumerate(rest if mark else ""):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return rest[:index].strip()
    return None


def as_number(text: str) -> Number | None:
    """Return the number that a whole text is, with or without a unit after it, or None."""
    prepared = _prepared(text).strip(" $")
    match = _NUMBER.match(prepared)
    if match is None or not _UNIT.fullmatch(prepared[match.end() :]):
        return None
    return _value(match)


def numbers(text: str) -> list[Number]:
    """Return the numbers in a text, in order."""
    found = (_value(match) for match in _NUMBER.finditer(_prepared(text)))
    return [number for number in found if number is not None]


def _prepared(text: str) -> str:
    plainer = re.sub(r"\\text\s*\{([^{}]*)\}|\\[,;!]|\\left|\\right", r"\1", text)
    bare = _LATEX.sub(r"(\1/\2)", plainer).replace("(", " ").replace(")", " ").replace("\\$", "$").replace("**", "")
    return " ".join(bare.split())  # one space at most: many would take the expressions long


def _value(match: re.Match[str]) -> Number | None:
    over, under = _fraction(match["value"]), _fraction(match["under"]) if match["under"] else Fraction(1)
    if over is None or not under:
        return None
    value = int(match["whole"] or 0) + over / under
    return Number(-value if match["sign"] in {"-", "−"} else value, bool(match["percent"]))


def _fraction(text: str) -> Fraction | None:
    bare = re.sub(r"[,'  ]", "", text)
    if len(bare) > 100:
        return None
    try:
        value = Decimal(bare)
    except InvalidOperation:
        return None
    return Fraction(value) if abs(value.adjusted()) < 1000 else None


def plain(text: str) -> str:
    """Return a text without case, marks around it, and more than single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_AROUND)
