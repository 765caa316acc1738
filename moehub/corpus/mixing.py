"""One file out of several, each with its share."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moehub.corpus import items, writing
from moehub.corpus.items import CHARACTERS_OF_A_TOKEN, Item
from moehub.errors import ConfigError, DataError


@dataclass(frozen=True)
class Source:
    """Files that are drawn from as one."""

    name: str
    files: Sequence[Path]
    weight: float = 1.0


@dataclass(frozen=True)
class Share:
    """What a source gave."""

    name: str
    records: int
    drawn: int
    """Records in the mix, repetitions included."""
    characters: int
    """In the mix."""
    asked: float
    """Share of the mix."""
    reached: float
    """The same, in the unit that was asked for."""
    exhausted: bool
    """Whether it had nothing more to give, or began anew."""


@dataclass(frozen=True)
class Mix:
    """What was drawn, in its order."""

    drawn: Sequence[Item]
    shares: Sequence[Share]

    def write(self, output: Path) -> None:
        """Write the records.

        Raises:
            DataError: they do not fit into the output's format.
        """
        writing.write(output, [item.record for item in self.drawn])


def mix(
    sources: Sequence[Source],
    *,
    records: int | None = None,
    tokens: int | None = None,
    repeat: bool = False,
    seed: int = 0,
) -> Mix:
    """Draw from sources by their weights: `records` records, or `tokens` tokens, or as much as the shares allow.

    Weights are of records, with `tokens` of characters, four of which are taken for a token. Each draw goes to the
    source that is furthest behind its share. A source that is exhausted leaves the rest to the others; with `repeat` it
    begins anew in another order. Without a number the mix ends at the turn of a source that is exhausted.

    Raises:
        DataError: a file cannot be read or has records that are none to learn from.
        ConfigError: weights or numbers that say nothing, or names that come twice.
    """
    _check(sources, records, tokens, repeat=repeat)
    wells = [_Well(source, _weight(source, sources), random.Random(f"{seed}:{source.name}")) for source in sources]  # noqa: S311
    goal = records if tokens is None else tokens * CHARACTERS_OF_A_TOKEN
    drawn: list[Item] = []
    done = 0
    while goal is None or done < goal:
        flowing = [well for well in wells if repeat or goal is None or not well.is_dry]
        well = min(flowing, key=lambda one: one.given / one.asked, default=None)
        if well is None or (well.is_dry and not repeat):
            break
        drawn.append(well.draw())
        size = 1 if tokens is None else max(1, len(drawn[-1].text))
        well.given += size
        done += size
    return Mix(drawn, [well.share(max(1, done)) for well in wells])


class _Well:
    """A source that is drawn from, in an order that its name and the seed decide."""

    def __init__(self, source: Source, asked: float, chance: random.Random) -> None:
        self.name = source.name
        self.asked = asked
        self.given = 0
        """Records or characters, whatever the shares are of."""
        self._items = items.read(source.files)
        if not self._items:
            raise DataError(f"the source {source.name} has no records: leave it out, or name other files")
        self._records = 0
        self._characters = 0
        self._chance = chance
        self._order = self._shuffled()

    @property
    def is_dry(self) -> bool:
        """Whether every record was drawn."""
        return self._records >= len(self._items)

    def draw(self) -> Item:
        """Return the next record; after the last, the first of a new order."""
        item = next(self._order)
        self._records += 1
        self._characters += len(item.text)
        return item

    def share(self, total: int) -> Share:
        """Return what was given of a total."""
        counts = self._records, self._characters
        return Share(self.name, len(self._items), *counts, self.asked, self.given / total, exhausted=self.is_dry)

    def _shuffled(self) -> Iterator[Item]:
        while True:
            order = list(range(len(self._items)))
            self._chance.shuffle(order)
            for number in order:
                yield self._items[number]


def _weight(source: Source, sources: Sequence[Source]) -> float:
    return source.weight / sum(one.weight for one in sources)


def _check(sources: Sequence[Source], records: int | None, tokens: int | None, *, repeat: bool) -> None:
    if records is not None and tokens is not None:
        raise ConfigError("the mix is measured in records or in tokens: give one number, not both")
    number = records if tokens is None else tokens
    if number is not None and number < 1:
        raise ConfigError(f"the mix is to have {number} records or tokens, expected at least 1")
    if repeat and number is None:
        raise ConfigError("with repetition a mix has no end: say how many records or tokens it is to have")
    for source in sources:
        if not 0 < source.weight < float("inf"):
            raise ConfigError(f"the source {source.name} has the weight {source.weight:g}, expected a number above 0")
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the source {name} is there twice: give each a name of its own")
