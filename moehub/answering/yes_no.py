"""Which tokens say yes and which say no, at the place where an answer begins.

A tokenizer may give ` yes` and ` no` the same first token (the blank alone). What it is worth there says nothing, and
would pull every answer towards one half: only tokens that tell the two apart are kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from moehub.errors import AnsweringError

_PAIRS = (("Yes", "No"), ("yes", "no"), ("YES", "NO"))
_TAIL = 64
"""Characters at the end of a prompt that decide how what follows is cut into tokens."""


@dataclass(frozen=True)
class YesNo:
    """Ids of tokens, none of them in both."""

    yes: tuple[int, ...]
    no: tuple[int, ...]


def find(tokenizer: Any, prompt: str) -> YesNo:
    """Return the tokens that begin a yes and a no after a prompt.

    A spelling counts where both words are one token each; only where no spelling is, first tokens that differ do.

    Raises:
        AnsweringError: no spelling tells yes from no by its first token.
    """
    tail = prompt[-_TAIL:]
    blanks = ("",) if tail[-1:].isspace() else (" ", "")
    found = [
        (_continuation(tokenizer, tail, blank + yes), _continuation(tokenizer, tail, blank + no))
        for blank in blanks
        for yes, no in _PAIRS
    ]
    whole = [(yes[0], no[0]) for yes, no in found if len(yes) == len(no) == 1]
    begun = [(yes[0], no[0]) for yes, no in found if yes and no]
    for pairs in (whole, begun):
        kept = _apart(pairs)
        if kept is not None:
            return kept
    raise AnsweringError(
        f"this model's tokenizer begins every yes and no with the same token after {tail[-20:]!r}, so its first token "
        "cannot tell them apart: choose another judge"
    )


def _apart(pairs: Sequence[tuple[int, int]]) -> YesNo | None:
    yes, no = {one for one, _ in pairs}, {other for _, other in pairs}
    both = yes & no
    return YesNo(tuple(sorted(yes - both)), tuple(sorted(no - both))) if yes - both and no - both else None


def _continuation(tokenizer: Any, text: str, more: str) -> list[int]:
    """Return the ids that `more` adds to those of `text`; none where it changes the last of them."""
    before = tokenizer(text, add_special_tokens=False)["input_ids"]
    after = tokenizer(text + more, add_special_tokens=False)["input_ids"]
    return list(after[len(before) :]) if after[: len(before)] == before else []
