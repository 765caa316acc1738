"""The bench's texts: what each contributor has, what settings are chosen on, and what only the table sees.

Four kinds of experts: those with words of their own, those that are easily confused (pages of two sections of one
manual, Python and C++, two kinds of questions to an assistant), and skills over the same words, made from a
neighbour's questions by answering them in another form. A text goes to one split alone, and so does what nearly
repeats it.
"""

import hashlib
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from random import Random

from benchmarks.quality import manuals
from moehub.chat import Message
from moehub.demo import arithmetic, sources
from moehub.demo.corpora import take
from moehub.demo.overlap import Shingles
from moehub.errors import DataError
from moehub.experts import data
from moehub.experts.examples import Completion, Conversation, Example, Text, digest

GENERIC = "generic"
_MACHINE: dict[str, Callable[[], Iterator[str]]] = {
    "python": sources.python,
    "cpp": sources.cpp,
    "legal": sources.legal,
    "json": sources.json,
    "french": lambda: manuals.pages("fr/man1", "fr/man5", "fr/man7", "fr/man8"),
    "german": lambda: manuals.pages("de/man1", "de/man5", "de/man7", "de/man8"),
    "library": lambda: manuals.pages("man3"),
}
_UNSEEN: dict[str, Callable[[], Iterator[str]]] = {
    "commands": lambda: manuals.pages("man1", "man8"),
    "spanish": lambda: manuals.pages("es/man1", "es/man5", "es/man7", "es/man8"),
    "italian": lambda: manuals.pages("it/man1", "it/man5", "it/man7", "it/man8"),
    "dutch": lambda: manuals.pages("nl/man1", "nl/man5", "nl/man7", "nl/man8"),
    "arithmetic": lambda: arithmetic.documents(0),
}


@dataclass(frozen=True)
class Sizes:
    """How much text of each kind there is, in characters."""

    train: int = 1_000_000
    """For one contributor, all seeds together, where there is as much."""
    base: int = 250_000
    """Of each domain for the base, apart from all else."""
    held: int = 32_000
    """Of each domain for tuning, and as much again for the table."""
    clip: int = 1_600
    """A held-out document is cut to this, so that many documents are measured."""
    generic: int = 6_000_000
    manual: int = 3_000_000
    """Further pages of the manual, for the base."""


@dataclass(frozen=True)
class Domain:
    """One domain's examples."""

    name: str
    train: tuple[Example, ...]
    tune: tuple[Example, ...]
    test: tuple[Example, ...]
    twin: str | None = None
    """For a skill: whose questions it answers in another form."""


@dataclass(frozen=True)
class Texts:
    """All of the bench's text."""

    domains: tuple[Domain, ...]
    unseen: tuple[Domain, ...]
    """Nobody trains on these."""
    generic: Domain
    """What the base was trained on most."""
    base: tuple[str, ...]
    """What the base is trained on; the null expert counts a part of it."""

    def domain(self, name: str) -> Domain:
        """Return the domain of that name."""
        return next(one for one in (*self.domains, *self.unseen, self.generic) if one.name == name)


def gather(folder: Path | None, sizes: Sizes | None = None) -> Texts:
    """Return the texts of this machine and, where given, of a folder with NAME.train.EXT and NAME.test.EXT.

    Raises:
        DataError: the folder holds no such files, or they cannot be read.
    """
    sizes = sizes or Sizes()
    held = Shingles()
    base: list[str] = []
    named = [] if folder is None else [_from_files(folder, name, sizes, base) for name in _names(folder)]
    machine = [_from_stream(name, stream(), sizes, held, base) for name, stream in _MACHINE.items()]
    unseen = [replace(_from_stream(name, stream(), sizes, held, base), train=()) for name, stream in _UNSEEN.items()]
    generic = _from_stream(GENERIC, sources.generic(), replace(sizes, train=sizes.generic, base=0), held, base)
    manual = take(manuals.pages("man2", "man4", "man5", "man6", "man7"), sizes.manual, held)
    found = tuple(one for one in (*named, *machine) if one.train and one.tune and one.test)
    skills = [skill for one in found for skill in _skills(one)]
    everything = [*base, *manual, *(said(example) for example in generic.train)]
    Random(0).shuffle(everything)  # noqa: S311 (an order, no secret)
    return Texts((*found, *skills), tuple(unseen), generic, tuple(everything))


def said(example: Example) -> str:
    """Return what an example says as one plain text."""
    match example:
        case Text():
            return example.text
        case Completion():
            return example.prompt + example.completion
        case Conversation():
            return "\n\n".join(message.content for message in example.messages)


def _skills(domain: Domain) -> Iterator[Domain]:
    """Yield what is made of a domain by answering its questions in another form."""
    for name, form in FORMS.get(domain.name, {}).items():
        splits = ([other for one in split if (other := form(one)) is not None] for split in _splits(domain))
        train, tune, test = map(tuple, splits)
        yield Domain(f"{domain.name}-{name}", train, tune, test, twin=domain.name)


def result_first(answer: str) -> str:
    """Return an answer with its last line first: the same words, and for all but two lines the same neighbours."""
    *working, result = answer.strip().split("\n")
    return "\n".join([result, *working])


def backwards(answer: str) -> str:
    """Return an answer's words in reverse order, line by line: the very same words."""
    return "\n".join(" ".join(reversed(line.split(" "))) for line in answer.split("\n"))


def _answering(form: Callable[[str], str]) -> Callable[[Example], Example | None]:
    def answered(example: Example) -> Example | None:
        match example:
            case Completion():
                return replace(example, completion=form(example.completion))
            case Conversation():
                messages = [
                    Message(one.role, form(one.content) if one.role == "assistant" else one.content)
                    for one in example.messages
                ]
                return replace(example, messages=tuple(messages))
        return None

    return answered


FORMS: dict[str, dict[str, Callable[[Example], Example | None]]] = {
    "math": {"first": _answering(result_first)},
    "medical": {"backwards": _answering(backwards)},
}
"""Domain → name of a skill → what makes an example of it from the domain's."""


def _splits(domain: Domain) -> tuple[tuple[Example, ...], ...]:
    return domain.train, domain.tune, domain.test


def _names(folder: Path) -> list[str]:
    names = sorted(path.name.split(".train.")[0] for path in folder.glob("*.train.*"))
    if not names:
        raise DataError(f"{folder} holds no NAME.train.jsonl or NAME.train.txt: give a folder of domains")
    return names


def _from_files(folder: Path, name: str, sizes: Sizes, base: list[str]) -> Domain:
    def read(split: str) -> list[Example]:
        examples = [part for one in data.read(sorted(folder.glob(f"{name}.{split}.*"))) for part in _parts(one, sizes)]
        return sorted(examples, key=digest)

    pool = iter(read("train"))
    tune = tuple(_clipped(one, sizes.clip) for one in _until(pool, sizes.held))
    base += [said(one) for one in _until(pool, sizes.base)]
    test = tuple(_clipped(one, sizes.clip) for one in _until(iter(read("test")), sizes.held))
    return Domain(name, tuple(_until(pool, sizes.train)), tune, test)


def _parts(example: Example, sizes: Sizes) -> Iterator[Example]:
    """Yield a long text as passages of whole paragraphs, anything else as it is."""
    if not isinstance(example, Text) or len(example.text) <= 4 * sizes.clip:
        yield example
        return
    held = ""
    for paragraph in example.text.split("\n\n"):
        held += f"{paragraph}\n\n"
        if len(held) >= sizes.clip:
            yield replace(example, text=held.strip() + "\n")
            held = ""


def _from_stream(name: str, stream: Iterator[str], sizes: Sizes, held: Shingles, base: list[str]) -> Domain:
    test = take(stream, sizes.held, held, hold_out=True, longest=sizes.clip)
    tune = take(stream, sizes.held, held, hold_out=True, longest=sizes.clip)
    rest = take(stream, sizes.base + sizes.train, held)
    # Where there is little text, the base gets little of it.
    for_base = _counted(rest, min(sizes.base, sum(map(len, rest)) // 6))
    base += rest[:for_base]
    train = rest[for_base:]
    train_texts, tune_texts, test_texts = (
        tuple(Text(text, origin=name) for text in texts) for texts in (train, tune, test)
    )
    return Domain(name, train_texts, tune_texts, test_texts)


def _counted(documents: Sequence[str], characters: int) -> int:
    """Return how many documents hold so many characters."""
    ends = list(accumulate(map(len, documents)))
    return bisect(ends, characters)


def _until(examples: Iterator[Example], wanted: int) -> Iterator[Example]:
    length = 0
    while length < wanted and (example := next(examples, None)) is not None:
        length += len(said(example))
        yield example


def _clipped(example: Example, longest: int) -> Example:
    if isinstance(example, Text) and len(example.text) > longest:
        return replace(example, text=sources.clip(example.text, longest) or example.text[:longest], ends=False)
    return example


def drawn(examples: Sequence[Example], characters: int, seed: int) -> list[Example]:
    """Return the examples that one seed's contributor has."""
    order = sorted(examples, key=lambda one: hashlib.sha256(f"{seed} {digest(one)}".encode()).digest())
    return list(_until(iter(order), characters))


def characters(examples: Iterable[Example]) -> int:
    """Return how many characters examples have together."""
    return sum(len(said(one)) for one in examples)
