"""What the experts are trained on, and the public text that they are checked with."""

import importlib.util
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moehub.base import Base, find
from moehub.demo import corpora, sources, steps
from moehub.demo.config import DemoConfig
from moehub.demo.overlap import Shingles
from moehub.demo.prose import docstrings, prose

_DOCUMENTED = ("transformers", "sympy", "networkx")
_MOST = 400_000
_LEAST = 60_000
_LONGEST = 9_000


@dataclass(frozen=True)
class Texts:
    """The text of the benchmark."""

    base: Base
    """The demo's small base."""
    domains: dict[str, tuple[str, ...]]
    """Domain → documents to train on."""
    held_out: dict[str, tuple[str, ...]]
    """Domain → documents that no expert has seen."""
    generic: tuple[str, ...]
    """Prose for the null expert; the small base has seen it too."""
    canary: tuple[str, ...]
    """Prose that nobody has seen."""


def gather() -> Texts:
    """Return the demo's corpora, style sheets, and the prose in the documentation of single packages."""
    text = corpora.gather()
    base = find(str(steps.small_base(text, DemoConfig())))
    domains = {one.name: one.train for one in text.contributors}
    held_out = {one.name: (*one.tune, *one.test) for one in text.contributors}
    seen = Shingles()
    for document in (*text.generic.tune, *text.generic.test):
        seen.add(document)
    more = {"css": _first(sources.css())} | {f"{name}-prose": _first(_prose(name, seen)) for name in _DOCUMENTED}
    for name, documents in more.items():
        if sum(map(len, documents)) >= _LEAST and name not in domains:
            # Every tenth document is kept aside.
            held_out[name], domains[name] = documents[::10], tuple(d for i, d in enumerate(documents) if i % 10)
    return Texts(base, domains, held_out, text.generic.train, (*text.generic.tune, *text.generic.test))


def _first(documents: Iterator[str]) -> tuple[str, ...]:
    taken: list[str] = []
    length = 0
    for document in documents:
        if length >= _MOST:
            break
        taken.append(document)
        length += len(document)
    return tuple(taken)


def _prose(package: str, aside: Shingles) -> Iterator[str]:
    """Yield the sentences in one package's docstrings, but for what the canary holds."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return
    root = Path(found.origin).parent
    for path in sorted(root.rglob("*.py"), key=lambda path: zlib.crc32(path.relative_to(root).as_posix().encode())):
        text = prose("\n\n".join(docstrings(path.read_text(encoding="utf-8", errors="ignore"))))
        if len(text) > 300 and aside.share(text) < 0.2:
            yield text[:_LONGEST]
