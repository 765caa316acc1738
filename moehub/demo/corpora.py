"""The demo's contributors: each has text to train on, text to tune on, and text that only the last table sees."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moehub.demo import arithmetic, sources
from moehub.demo.overlap import Shingles
from moehub.errors import DataError

FOUNDERS = ("python", "cpp", "legal", "arithmetic")
GENERIC = "generic"
SWITCHING = "switching"
_MOST_OVERLAP = 0.2
_LEAST_TRAIN = 40_000


@dataclass(frozen=True)
class Sizes:
    """How much text of each kind is read, in characters."""

    train: int = 400_000
    """For one contributor, where there is as much."""
    tune: int = 16_000
    """Held out for choosing settings; neither trained on nor reported."""
    test: int = 24_000
    """Held out for the report."""
    generic: int = 2_400_000
    """Prose to train the base and the null expert on."""
    passage: int = 400
    """One domain's turn in the document that switches domains."""
    turns: int = 40
    """Passages in all documents that switch domains."""
    glance: int = 180
    """One domain's turn in the passage that is shown."""


@dataclass(frozen=True)
class Corpus:
    """One contributor's text, in documents."""

    name: str
    train: tuple[str, ...]
    tune: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Corpora:
    """All of the demo's text; no run of words long enough to matter is on both sides of a split."""

    founders: tuple[Corpus, ...]
    """The four that the MoE begins with."""
    newcomer: Corpus
    """The fifth, which joins and leaves."""
    generic: Corpus
    """English prose, for the base and the null expert."""
    switching: tuple[str, ...]
    """Documents whose passages take turns between the founders, made from test text."""
    glance: str
    """One short text of that kind, for people to look at."""

    @property
    def contributors(self) -> tuple[Corpus, ...]:
        """The founders and the newcomer."""
        return (*self.founders, self.newcomer)


def gather(sizes: Sizes | None = None, *, seed: int = 0) -> Corpora:
    """Return the demo's text: the same on every run on one machine; `seed` draws the arithmetic and the turns.

    Raises:
        DataError: a contributor's text is not on this machine.
    """
    sizes = sizes or Sizes()
    streams = _streams(seed)
    held_out = Shingles()
    tests = {name: take(stream, sizes.test, held_out, hold_out=True) for name, stream in streams.items()}
    tunes = {name: take(stream, sizes.tune, held_out, hold_out=True) for name, stream in streams.items()}
    wanted = {name: sizes.generic if name == GENERIC else sizes.train for name in streams}
    corpora = {
        name: Corpus(name, take(stream, wanted[name], held_out), tunes[name], tests[name])
        for name, stream in streams.items()
    }
    newcomer = _newcomer(corpora)
    _check([*(corpora[name] for name in (*FOUNDERS, GENERIC)), newcomer], least=min(_LEAST_TRAIN, sizes.train // 2))
    founders = tuple(corpora[name] for name in FOUNDERS)
    return Corpora(
        founders,
        newcomer,
        corpora[GENERIC],
        switching=_documents(_turns(founders, sizes.passage, sizes.turns, seed)),
        glance="\n".join(_turns(founders, sizes.glance, len(founders) + 2, seed)),
    )


def _streams(seed: int) -> dict[str, Iterator[str]]:
    return {
        "python": sources.python(),
        "cpp": sources.cpp(),
        "legal": sources.legal(),
        "arithmetic": arithmetic.documents(seed),
        "json": sources.json(),
        "css": sources.css(),
        GENERIC: sources.generic(),
    }


def take(
    stream: Iterator[str], wanted: int, held_out: Shingles, *, hold_out: bool = False, longest: int | None = None
) -> tuple[str, ...]:
    """Return documents of `wanted` characters or more, none twice and none that repeats what is held out.

    Those that have more than `longest` characters are cut off, at the end of a line where there is one.
    """
    taken: dict[str, None] = {}
    length = 0
    while length < wanted and (document := next(stream, None)) is not None:
        if document in taken or held_out.share(document) > _MOST_OVERLAP:
            continue
        if hold_out:
            held_out.add(document)
        text = document if longest is None else sources.clip(document, longest) or document[:longest]
        taken[text] = None
        length += len(text)
    return tuple(taken)


def _newcomer(corpora: dict[str, Corpus]) -> Corpus:
    """Return JSON, or CSS on a machine whose packages brought no JSON."""
    return max((corpora["json"], corpora["css"]), key=lambda corpus: sum(map(len, corpus.train)))


def _check(corpora: Sequence[Corpus], *, least: int) -> None:
    for corpus in corpora:
        length = sum(map(len, corpus.train))
        if length < least or not corpus.test or not corpus.tune:
            raise DataError(
                f"this Python installation holds {length} characters of {corpus.name} text to train on, expected at "
                f"least {least}: install moehub and its dependencies from their wheels, with the standard library's "
                "sources and every package's licence files"
            )


def _documents(turns: Sequence[str]) -> tuple[str, ...]:
    """Return the turns as documents of eight each."""
    return tuple("\n".join(turns[begin : begin + 8]) for begin in range(0, len(turns), 8))


def _turns(corpora: Sequence[Corpus], length: int, count: int, seed: int) -> list[str]:
    """Return passages of test text, none used twice; no domain follows itself."""
    draw = random.Random(f"switching {seed}")  # noqa: S311 (turns, not secrets)
    passages = {corpus.name: list(_passages(corpus.test, length)) for corpus in corpora}
    for held in passages.values():
        draw.shuffle(held)
    taken: list[str] = []
    turns: list[str] = []
    while len(turns) < count:
        left = [name for name in passages if passages[name] and name not in taken[-1:]]
        if not left:
            break
        draw.shuffle(left)
        # Whoever had the fewest turns goes next: the domains stay even to the end.
        taken.append(min(left, key=taken.count))
        turns.append(passages[taken[-1]].pop())
    return turns


def _passages(documents: Sequence[str], length: int) -> Iterator[str]:
    """Yield stretches of whole lines of at least `length` characters, and not much more."""
    for document in documents:
        held = ""
        for line in document.splitlines(keepends=True):
            held += line
            if len(held) >= length:
                yield held[: 2 * length].strip("\n")
                held = ""
