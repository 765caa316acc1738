"""The manual pages of this machine as text, by language and section."""

import gzip
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from moehub.demo import sources

ROOT = Path("/usr/share/man")
_LONGEST = 4_000
_SHORTEST = 300
_OF_A_FAMILY = 12
_SPOKEN = re.compile(r"^[.'](?:[BIR]{1,2}|SH|SS|IP|SM|SB)\s+(.*)$")
_ESCAPES = (
    (re.compile(r"\\f(?:\[[^\]]*\]|\(..|.)"), ""),
    (re.compile(r"\\s[+-]?\d"), ""),
    (re.compile(r"\\\(co|\\\(rg|\\\(tm"), ""),
    (re.compile(r"\\\((?:aq|cq|oq)|\\\[(?:aq|cq|oq)\]"), "'"),
    (re.compile(r"\\\((?:dq|lq|rq)|\\\[(?:dq|lq|rq)\]"), '"'),
    (re.compile(r"\\\((?:em|en|hy)|\\\[(?:em|en|hy)\]"), "-"),
    (re.compile(r"\\\((?:bu|ci)"), "*"),
    (re.compile(r"\\\(..|\\\[[^\]]*\]|\\\*\(..|\\\*."), ""),
    (re.compile(r"\\[&%|^:/,]|\\c$"), ""),
    (re.compile(r"\\[- .~e0]"), lambda found: {"-": "-", ".": ".", "e": "\\"}.get(found.group()[1], " ")),
)


def pages(*folders: str) -> Iterator[str]:
    """Yield stretches of the pages in folders such as `man3` or `fr/man1` in one fixed order.

    A program may have hundreds of pages, each nearly the same: of a family of names, a few are read.
    """
    found = {path.name: path for folder in folders for path in sorted((ROOT / folder).glob("*.gz"))}
    read: Counter[str] = Counter()
    for path in sources.in_order(found.values(), key=lambda path: path.name):
        family = re.split(r"[-_.:]", path.name)[0]
        read[family] += 1
        if read[family] > _OF_A_FAMILY:
            continue
        yield from _stretches(_text(path))


def plain(source: str) -> str:
    """Return the sentences of a page of troff: macros, comments and tables of definitions are left out."""
    lines = []
    for line in source.splitlines():
        spoken = _SPOKEN.match(line)
        if spoken is None and line[:1] in {".", "'"}:
            if line.startswith((".PP", ".TP", ".LP", ".P ")) or line in {".P", ".sp"}:
                lines.append("")
            continue
        text = line if spoken is None else spoken[1].replace('"', "")
        for pattern, meant in _ESCAPES:
            text = pattern.sub(meant, text)
        lines.append(text.rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() + "\n"


def _text(path: Path) -> str:
    try:
        return plain(gzip.decompress(path.read_bytes()).decode("utf-8"))
    except (OSError, UnicodeDecodeError, EOFError):
        return ""


def _stretches(text: str) -> Iterator[str]:
    """Yield a page in stretches of whole lines."""
    while len(text) > _SHORTEST:
        stretch = sources.clip(text, _LONGEST) or text[:_LONGEST]
        yield stretch
        text = text[len(stretch) :]
