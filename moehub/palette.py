"""One colour for each expert, the same in the terminal and on pages."""

from collections.abc import Sequence

COLOURS = (
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#0072b2",
    "#d55e00",
    "#cc79a7",
    "#8c6d31",
    "#7b4173",
    "#637939",
)
"""Okabe and Ito's palette, told apart by colour-blind people too, and three more."""


def colours(names: Sequence[str]) -> dict[str, str]:
    """Return a colour for each expert, in order; the null expert has none."""
    return {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(names)}
