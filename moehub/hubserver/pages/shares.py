"""Where tokens went, as bars."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from moehub.palette import COLOURS

_NULL = "null"


@dataclass(frozen=True)
class Part:
    """One piece of a bar, in per cent of its width."""

    name: str
    begin: float
    width: float
    style: str
    """The class that gives it its colour."""


def parts(shares: Mapping[str, float], names: Sequence[str]) -> list[Part]:
    """Return a bar of shares of one text's tokens: the experts in the order of `names`, and last the null expert."""
    found, begin = [], 0.0
    for name in (*names, _NULL):
        width = min(100 * max(shares.get(name, 0.0), 0.0), 100 - begin)
        if width > 0:
            found.append(Part(name, round(begin, 3), round(width, 3), style(name, names)))
            begin += width
    return found


def style(name: str, names: Sequence[str]) -> str:
    """Return the class of an expert's colour; the null expert has none of its own."""
    return f"c{list(names).index(name) % len(COLOURS)}" if name in names else "null"
