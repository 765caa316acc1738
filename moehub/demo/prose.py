"""English sentences taken out of documentation: markup, code, tables and lists of parameters stay behind."""

import re
import textwrap

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.DOTALL | re.MULTILINE)
_TAG = re.compile(r"<[^>\n]+>")
_LINK = re.compile(r"!?\[([^\]\n]*)\](?:\([^)\n]*\)|\[[^\]\n]*\])")
_RST_LINK = re.compile(r"`([^`<\n]+?)\s*<[^>\n]*>`_+")
_ROLE = re.compile(r":[a-z:]+:`~?([^`\n]*)`")
_EMPHASIS = re.compile(r"[*_]{2,}|`+")
_DOCSTRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_LISTED = re.compile(r"---|===| : |^\s*[-*•] |^\s*\d+\. ", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z ,.;:'’“”\"()\n-]")
_WORD = re.compile(r"[A-Za-z]+(?:['’-][a-z]+)?")


def prose(text: str) -> str:
    """Return the paragraphs of `text` that are English sentences, with blank lines between."""
    text = _FENCE.sub("", text.replace("\r\n", "\n"))
    for markup in (_LINK, _RST_LINK, _ROLE):
        text = markup.sub(r"\1", text)
    text = _EMPHASIS.sub("", _TAG.sub("", text))
    paragraphs = (_dedented(paragraph) for paragraph in re.split(r"\n\s*\n", text))
    return "\n\n".join(paragraph for paragraph in paragraphs if is_prose(paragraph))


def docstrings(source: str) -> list[str]:
    """Return what stands between triple double quotes in Python source."""
    return _DOCSTRING.findall(source)


def is_prose(paragraph: str) -> bool:
    """Return whether a paragraph reads as sentences: words rather than symbols, from a capital to a full stop."""
    words = _WORD.findall(paragraph)
    return (
        len(words) >= 12
        and paragraph[0].isupper()
        and paragraph[-1] in ".!?:"
        and not _LISTED.search(paragraph)
        and sum(map(len, words)) >= 0.75 * len(paragraph.replace("\n", " "))
        and len(_PLAIN.findall(paragraph)) >= 0.97 * len(paragraph)
    )


def _dedented(paragraph: str) -> str:
    """Return a paragraph flush left: the first line of a docstring is indented less than those below."""
    first, newline, rest = paragraph.strip("\n").partition("\n")
    return (first.strip() + newline + textwrap.dedent(rest)).strip()
