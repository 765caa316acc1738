"""A yes or a no in what a model wrote."""

import re

_THOUGHTS = "</think>"
_MARKS = " \t\n\r*_\"'`#>:.,!Ġ▁([{"
"""What may stand before the first word: blanks as tokenizers write them, and signs of emphasis."""
_WORD = re.compile(r"[^\W\d_]+")


def said_yes(text: str) -> bool | None:
    """Return whether the first word, after any thoughts, is yes; None where it is neither yes nor no."""
    word = _WORD.match(text.rsplit(_THOUGHTS, maxsplit=1)[-1].lstrip(_MARKS))
    return {"yes": True, "no": False}.get(word[0].casefold()) if word else None
