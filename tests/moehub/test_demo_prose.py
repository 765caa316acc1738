"""Prose: sentences stay, everything else that documentation holds goes."""

import pytest

from moehub.demo.overlap import Shingles
from moehub.demo.prose import docstrings, is_prose, prose

SENTENCES = (
    "The enclosing function is called once for each element of the sequence, and what it returns decides whether "
    "the element is kept."
)


@pytest.mark.parametrize(
    "paragraph",
    [
        ">>> a = np.arange(12).reshape(3, 4); b = a[::2] @ weights[0] and then the result is shown here",
        "x : int, optional\n    The number of the rows that are shown to somebody who looks at the whole table.",
        "Parameters\n----------\nThe parameters are those of the function above, with the exceptions that follow here.",
        "| name | what | how | why | when | where | who | whom | whose | which | that | this |",
        "the line begins with a small letter and so it is the middle of something that was cut.",
        "Too short to be one.",
        "This is a heading that has as many words as a sentence would have but no full stop",
    ],
)
def test_what_is_no_sentence_goes(paragraph: str) -> None:
    """Code, parameters, underlined headings, tables and fragments are no prose."""
    assert not is_prose(paragraph)


def test_sentences_stay_between_what_goes() -> None:
    """Paragraphs of sentences come out in order, flush left."""
    text = f"Title\n=====\n\n    {SENTENCES}\n\n```python\n{SENTENCES}\n```\n\n* a list\n* of things\n\n{SENTENCES}\n"
    assert prose(text) == f"{SENTENCES}\n\n{SENTENCES}"


def test_links_and_emphasis_leave_their_words() -> None:
    """Markup around words goes, the words stay."""
    marked = SENTENCES.replace("function", "[function](https://example.org/f)").replace("element", "**element**", 1)
    assert prose(marked) == SENTENCES


def test_docstrings_are_found_and_dedented() -> None:
    """The first line of a docstring is indented less than the others; all end up flush left."""
    source = f'def f():\n    """{SENTENCES}\n    {SENTENCES}\n    """\n'
    assert prose(docstrings(source)[0]) == f"{SENTENCES}\n{SENTENCES}"


def test_overlap_counts_runs_of_words_whatever_the_punctuation() -> None:
    """A copy overlaps wholly, a copy in other case and punctuation too, half a copy by about half."""
    seen = Shingles(words=4)
    seen.add(SENTENCES)
    assert seen.share(SENTENCES.upper().replace(",", ";")) == 1.0
    assert seen.share("Nothing of this was ever said before by anybody in this place.") == 0.0
    half = SENTENCES.split()
    mixed = " ".join([*half[: len(half) // 2], *(f"new{number}" for number in range(len(half) // 2))])
    assert 0.25 < seen.share(mixed) < 0.6


def test_a_text_too_short_for_a_run_overlaps_with_nothing() -> None:
    """No division by zero."""
    assert Shingles().share("two words") == 0.0
