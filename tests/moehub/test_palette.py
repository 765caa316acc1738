import itertools
import re

from moehub.palette import COLOURS, colours


def test_neighbours_never_share_a_colour() -> None:
    """Colours go by position, repeat only after all were used, and the null expert has none."""
    names = [f"expert-{number}" for number in range(2 * len(COLOURS) + 1)]
    given = colours(names)
    assert list(given) == names
    assert all(first != second for first, second in itertools.pairwise(given.values()))
    assert len(set(list(given.values())[: len(COLOURS)])) == len(COLOURS)
    assert "null" not in given


def test_colours_are_what_terminals_and_pages_understand() -> None:
    """Each is a hexadecimal colour."""
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in COLOURS)
