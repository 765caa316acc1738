"""Where the demo's text comes from: what Python and moehub's own dependencies brought to this machine.

Every function yields documents in an order that depends on nothing but the names of the files, so
two runs on one machine read the same text. Files that cannot be decoded are passed over.
"""

import hashlib
import importlib.util
import os
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TypeAlias, TypeVar

from moehub.demo.overlap import Shingles
from moehub.demo.prose import docstrings, prose

T = TypeVar("T")
Reader: TypeAlias = tuple[str, Callable[[], str]]
"""The name of a text, and what reads it."""

_SHORTEST = 300
_LONGEST = 4_000
_LONGEST_PROSE = 9_000
_PASSAGE = 1_200
_LICENCE = re.compile(r"licen[cs]e|copying|notice", re.IGNORECASE)
_COPYRIGHT = re.compile(r"copyright|licen[cs]e|spdx", re.IGNORECASE)
_LEADING_COMMENT = re.compile(r"\s*(?:/\*.*?\*/|(?://[^\n]*\n)+|(?:#(?!include|pragma|if|define)[^\n]*\n)+)", re.DOTALL)
_DOCUMENTED = ("numpy", "pandas", "torch", "transformers", "networkx", "sympy", "sqlalchemy", "datasets", "click")


def python() -> Iterator[str]:
    """Yield sources of the standard library, each without its licence and its tests."""
    root = Path(sysconfig.get_path("stdlib"))
    skipped = {"site-packages", "dist-packages", "test", "tests", "idlelib", "pydoc_data", "__pycache__", "encodings"}
    paths = (path for path in _below(root, ".py") if not skipped.intersection(path.relative_to(root).parts))
    yield from _read(root, paths)


def cpp() -> Iterator[str]:
    """Yield the C++ headers that torch ships and people wrote, each without its licence."""
    root = _package("torch") / "include"
    headers = _read(root, _below(root, ".h", ".hpp", ".cuh"))
    yield from (text for text in headers if "@generated" not in text)


def legal() -> Iterator[str]:
    """Yield passages of the licences in site-packages, each paragraph once however many packages carry it.

    There is little legal text that differs, so passages of one licence may fall on both sides of a split;
    no paragraph does, nor a variant of it.
    """
    root = Path(sysconfig.get_path("purelib"))
    licences = (
        path
        for path in _below(root, "")
        if any(part.endswith(".dist-info") for part in path.parts[:-1]) and _LICENCE.search(path.name)
    )
    yield from _passages(sorted(licences), root)


def json() -> Iterator[str]:
    """Yield stretches of the JSON files in site-packages."""
    yield from _stretches(Path(sysconfig.get_path("purelib")), ".json")


def css() -> Iterator[str]:
    """Yield stretches of the style sheets in site-packages."""
    yield from _stretches(Path(sysconfig.get_path("purelib")), ".css")


def generic() -> Iterator[str]:
    """Yield English prose about anything: Python's help topics, package descriptions, docstrings."""
    readers = [*_help_topics(), *_descriptions(), *_documented()]
    for _, read in in_order(readers, key=lambda reader: reader[0]):
        text = prose(read())
        if len(text) > _SHORTEST:
            yield clip(text, _LONGEST_PROSE)


def _help_topics() -> Iterator[Reader]:
    """Yield the language reference that `help()` shows; some distributions leave it out."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return
    yield from ((name, partial(str, text)) for name, text in topics.items())


def _descriptions() -> Iterator[Reader]:
    """Yield what installed packages say of themselves, below the headers of their METADATA."""
    root = Path(sysconfig.get_path("purelib"))
    for path in _below(root, "METADATA"):
        yield _name(path, root), partial(_description, path)


def _documented() -> Iterator[Reader]:
    """Yield the docstrings of well documented packages."""
    for package in _DOCUMENTED:
        root = _package(package)
        chosen = [path for path in _below(root, ".py") if "tests" not in path.parts and _size(path) > 12_000]
        for path in in_order(chosen, key=lambda path: _name(path, root))[:150]:
            yield f"{package}/{_name(path, root)}", partial(_docstrings, path)


def _description(path: Path) -> str:
    return (_text(path) or "").partition("\n\n")[2]


def _docstrings(path: Path) -> str:
    return "\n\n".join(docstrings(_text(path) or ""))


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    return Path(found.origin).parent if found is not None and found.origin is not None else Path("absent") / name


def _below(root: Path, *endings: str) -> Iterator[Path]:
    yield from (path for path in _files(root) if path.name.endswith(endings))


@cache
def _files(root: Path) -> tuple[Path, ...]:
    return tuple(Path(folder) / name for folder, _, names in os.walk(root) for name in names)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()


def in_order(items: Iterable[T], key: Callable[[T], str]) -> list[T]:
    """Return `items` shuffled by a hash of their names: the same on every run, and no folder comes first."""
    return sorted(items, key=lambda item: hashlib.sha256(key(item).encode()).digest())


def _read(root: Path, paths: Iterable[Path]) -> Iterator[str]:
    for path in in_order(paths, key=lambda path: _name(path, root)):
        text = _text(path)
        if text is not None and len(text := _without_licence(text)) > _SHORTEST:
            yield clip(text)


def _stretches(root: Path, ending: str) -> Iterator[str]:
    stretches = [
        (f"{_name(path, root)}:{begin}", stretch)
        for path in _below(root, ending)
        if (text := _text(path)) is not None
        for begin, stretch in enumerate(_cut(text.splitlines(keepends=True), _PASSAGE))
    ]
    yield from (stretch for _, stretch in in_order(stretches, key=lambda item: item[0]))


def _passages(paths: list[Path], root: Path) -> Iterator[str]:
    seen, passages = Shingles(words=5), []
    for path in paths:
        fresh = [text for text in re.split(r"\n\s*\n", _text(path) or "") if _is_new(text, seen)]
        cut = _cut([f"{text.strip(chr(10))}\n\n" for text in fresh], _PASSAGE)
        passages += [(f"{_name(path, root)}:{begin}", passage) for begin, passage in enumerate(cut)]
    yield from (passage for _, passage in in_order(passages, key=lambda item: item[0]))


def _is_new(paragraph: str, seen: Shingles) -> bool:
    """Return whether a paragraph is a sentence of its own, and remember it."""
    if len(paragraph.split()) < 12 or seen.share(paragraph) > 0.4:
        return False
    seen.add(paragraph)
    return True


def _cut(pieces: Iterable[str], length: int) -> Iterator[str]:
    """Yield neighbouring pieces joined to texts of at least `length` characters (the last may be shorter)."""
    held: list[str] = []
    for piece in pieces:
        held.append(piece)
        if sum(map(len, held)) >= length:
            yield "".join(held)
            held = []
    if held:
        yield "".join(held)


def _without_licence(text: str) -> str:
    comment = _LEADING_COMMENT.match(text)
    while comment is not None and comment.end() and _COPYRIGHT.search(comment.group()):
        text = text[comment.end() :]
        comment = _LEADING_COMMENT.match(text)
    return text.lstrip()


def clip(text: str, longest: int = _LONGEST) -> str:
    """Return the whole lines among the first characters, so that no single file makes up a domain."""
    return text if len(text) <= longest else text[: text.rfind("\n", 0, longest) + 1]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
