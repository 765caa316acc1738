"""What is cut off from a model's reply, and what makes a reply no text to learn from.

The signs are simple and of the text alone; what is wrong in substance they do not see: judge it (`moehub judge`).
"""

import re
from collections.abc import Iterable

_THOUGHTS = "</think>"
_LABEL = re.compile(
    r"^(?:\W*(?:new |rewritten |revised )?(?:task|instruction|request|question|text)\W*:\W*|\d+[.)]\s+)", re.IGNORECASE
)
_QUOTES = (('"', '"'), ("“", "”"), ("«", "»"), ("'", "'"))
_REFUSAL = re.compile(
    r"^(?:i['’]?m sorry|i am sorry|sorry,|i can(?:no|')t (?:help|assist|provide|fulfil)|as an ai\b|i am unable|"
    r"i['’]?m unable|i am an ai|i['’]?m an ai)",
    re.IGNORECASE,
)
_UNSEEN = re.compile(
    r"\b(?:image|picture|photo(?:graph)?|video|audio|attached|attachment|screenshot)s?\b", re.IGNORECASE
)
"""What a model of text cannot look at."""
_TAGS = ("<task>", "</task>", "<text>", "</text>")
"""Of our own requests."""
_LEAST_WORDS, _MOST_WORDS = 3, 400
_LOOPS_FROM, _LEAST_NEW = 24, 0.5
"""From how many words on repetition is looked at, and which share of the runs of three words must be different."""


def cleaned(reply: str) -> str:
    """Return a reply without thoughts, a label before it and quotes around it."""
    text = _LABEL.sub("", reply.rsplit(_THOUGHTS, maxsplit=1)[-1].strip()).strip()
    for opening, closing in _QUOTES:
        inner = text[1:-1]
        if len(text) > 1 and text.startswith(opening) and text.endswith(closing) and opening not in inner:
            return inner.strip()
    return text


def task_fault(text: str, sources: Iterable[str]) -> str | None:
    """Return why a text is no task to learn from, in one word or two; None where it is one.

    Args:
        text: what was written.
        sources: what it was made from.
    """
    words = text.split()
    if len(words) < _LEAST_WORDS:
        return "too short"
    if len(words) > _MOST_WORDS:
        return "too long"
    if _UNSEEN.search(text) and not any(_UNSEEN.search(source) for source in sources):
        return "needs more than text"
    return _fault(text, sources)


def text_fault(text: str, sources: Iterable[str]) -> str | None:
    """Return why a text that was rewritten is none to learn from; None where it is one."""
    return "too short" if len(text.split()) < _LEAST_WORDS else _fault(text, sources)


def answer_fault(text: str, task: str, *, cut: bool) -> str | None:
    """Return why an answer is none to learn from; None where it is one.

    Args:
        text: the answer.
        task: what was asked.
        cut: whether it was as long as it was allowed to be, so that its end is missing.
    """
    if not text.strip():
        return "empty"
    return "cut off" if cut else _fault(text, [task])


def _fault(text: str, sources: Iterable[str]) -> str | None:
    if _REFUSAL.search(text):
        return "refused"
    if any(tag in text for tag in _TAGS) and not any(tag in source for source in sources for tag in _TAGS):
        return "echoes the request"
    if any(_same(text, source) for source in sources):
        return "unchanged"
    return "repetitive" if _repeats(text) else None


def _same(one: str, other: str) -> bool:
    return one.casefold().split() == other.casefold().split()


def _repeats(text: str) -> bool:
    words = text.split()
    if len(words) < _LOOPS_FROM:
        return False
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(runs)) < _LEAST_NEW * len(runs)
