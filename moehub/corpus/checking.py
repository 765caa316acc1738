"""What is wrong with records before somebody learns from them: every fault of every file in one pass."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moehub import base as bases
from moehub.corpus import items, pii, sizes
from moehub.corpus.items import Item, Kind
from moehub.corpus.leaks import LENGTH, Leaks, leaks_of
from moehub.corpus.words import fingerprint
from moehub.errors import DataError
from moehub.experts import records
from moehub.experts.records import Record

FAULTS = ("broken", "empty", "duplicate", "too_long", "private", "leaked")
"""What a record can be: none to learn from, without text, said before, too long, private, of an evaluation."""
SHOWN = 10
"""Records of each fault that a report names."""

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Demands:
    """What records are checked against."""

    kind: Kind | None = None
    """What they all have to be; without, each is what its fields show."""
    context: int | None = None
    """Tokens that an example may have; documents may have any number, as training cuts them into windows."""
    base: str | None = None
    """Whose tokenizer counts; without, four characters are taken for a token."""
    against: Sequence[Path] = ()
    """Evaluation files that must not be learned."""
    length: int = LENGTH
    """Words of a run that a record and an evaluation item may not share."""


@dataclass
class Report:
    """What was found."""

    files: dict[str, int] = field(default_factory=dict)
    """File → records."""
    unreadable: dict[str, str] = field(default_factory=dict)
    """File → why it cannot be read."""
    forms: Counter[str] = field(default_factory=Counter)
    """Format → records."""
    faults: Counter[str] = field(default_factory=Counter)
    """Fault → records that have it; a record may have several."""
    private: Counter[str] = field(default_factory=Counter)
    """Kind of private data → places."""
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Fault → where the first records stand that have it, and why."""
    characters: int = 0
    longest: int = 0
    """Tokens of the longest record that has to fit into the context."""
    clean: list[Record] = field(default_factory=list)
    """Records without a fault."""

    @property
    def is_bad(self) -> bool:
        """Whether anything was found that should not be there."""
        return bool(self.unreadable) or self.faults.total() > 0

    def note(self, fault: str, record: Record, why: str) -> None:
        """Count a record's fault, and name it if it is among the first."""
        self.faults[fault] += 1
        named = self.examples.setdefault(fault, [])
        if len(named) < SHOWN:
            named.append(f"{record.origin}: {why}")

    def to_dict(self) -> dict[str, Any]:
        """Return the report, without the records."""
        return {
            "files": self.files,
            "unreadable": self.unreadable,
            "records": sum(self.files.values()),
            "clean": len(self.clean),
            "formats": dict(sorted(self.forms.items())),
            "faults": {fault: self.faults[fault] for fault in FAULTS},
            "private": {kind: self.private[kind] for kind in pii.KINDS},
            "examples": self.examples,
            "characters": self.characters,
            "longest": self.longest,
        }


def check(sources: Sequence[Path], demands: Demands | None = None, on_file: Advance | None = None) -> Report:
    """Return everything that is wrong with the records of files; a file that cannot be read does not end it.

    Raises:
        DataError: an evaluation file cannot be read.
        BaseModelError: the base cannot be found.
        ConfigError: runs of fewer words than evaluation items are looked for by.
    """
    demands = demands or Demands()
    eyes = _Eyes(demands)
    report = Report()
    for source in sources:
        name = "standard input" if str(source) == "-" else str(source)
        try:
            found = records.read([source])[0]
        except DataError as error:
            report.unreadable[name] = str(error)
        else:
            report.files[name] = report.files.get(name, 0) + len(found)
            eyes.look(found, report)
        if on_file is not None:
            on_file(1)
    return report


class _Eyes:
    """What looks at records, one file after another, and remembers what was said."""

    def __init__(self, demands: Demands) -> None:
        self._kind = demands.kind
        self._tokenizer, self._context = _limits(demands)
        items_there = items.read(demands.against) if demands.against else []
        self._leaks: Leaks | None = leaks_of(items_there, demands.length) if items_there else None
        self._said: dict[str, str] = {}

    def look(self, found: Sequence[Record], report: Report) -> None:
        """Add what is wrong with one file's records to a report."""
        good = list(self._items(found, report))
        leaks = self._leaks.find([item.text for item in good]) if self._leaks else [None] * len(good)
        for item, leak in zip(good, leaks, strict=True):
            before = report.faults.total()
            self._look_at(item, report)
            if leak is not None:
                report.note("leaked", item.record, f"holds the evaluation item of {leak}")
            if report.faults.total() == before:
                report.clean.append(item.record)

    def _items(self, found: Sequence[Record], report: Report) -> Iterator[Item]:
        for record in found:
            try:
                item = items.item_of(record, self._kind)
            except DataError as error:
                report.note("empty" if items.is_empty(record.value) else "broken", record, str(error))
                continue
            report.forms[item.form] += 1
            report.characters += len(item.text)
            yield item

    def _look_at(self, item: Item, report: Report) -> None:
        said = fingerprint(item.text)
        if said in self._said:
            report.note("duplicate", item.record, f"repeats {self._said[said]}")
        self._said.setdefault(said, item.record.origin)
        private = [finding for text in pii.strings(item.record.value) for finding in pii.find(text)]
        if private:
            report.private.update(finding.kind for finding in private)
            shown = ", ".join(f"{finding.kind} {finding.masked}" for finding in private[:3])
            report.note("private", item.record, shown + (", …" if len(private) > 3 else ""))
        self._measure(item, report)

    def _measure(self, item: Item, report: Report) -> None:
        if item.form == "document":
            return
        try:
            size = sizes.tokens(self._tokenizer, item)
        except DataError as error:
            report.note("broken", item.record, str(error))
            return
        report.longest = max(report.longest, size)
        if self._context is not None and size > self._context:
            about = "" if self._tokenizer else "about "
            report.note("too_long", item.record, f"has {about}{size} tokens, more than {self._context}")


def _limits(demands: Demands) -> tuple[Any, int | None]:
    """Return the tokenizer, if a base brings one, and the context."""
    if demands.base is None:
        return None, demands.context
    found = bases.find(demands.base)
    context = demands.context
    return found.load_tokenizer(), bases.context_length(found.load_config()) if context is None else context
