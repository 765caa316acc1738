"""How a method's settings are chosen: one objective for all, on the texts for tuning alone."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from benchmarks.quality.method import Entrant
from benchmarks.quality.rows import SWITCHING, Held
from benchmarks.quality.score import Sums, sums
from benchmarks.quality.world import World

ROWS = 3
"""Of each domain's text for tuning, and of the text that switches: a grid asks for many answers."""
_LEAST_GAIN = 0.01
"""Nats per token: where an expert gains less over the base, shares of its gain mean nothing."""

Setting = dict[str, Any]
Made = TypeVar("Made", bound=Entrant)


@dataclass(frozen=True)
class Objective:
    """Half the mean gain kept over the domains, and half the gain kept on the text that switches, in percent."""

    texts: dict[str, Held]
    base: dict[str, Sums]
    oracle: dict[str, Sums]

    @classmethod
    def of(cls, world: World, rows: int = ROWS) -> "Objective":
        """Return the objective on some rows of a world's texts for tuning."""
        from benchmarks.quality.methods import oracle  # that package imports this module

        texts = {name: few(world.tune[name], rows) for name in (*world.names, SWITCHING)}
        return cls(texts, _sums(oracle.base(world), texts), _sums(oracle.expert(world), texts))

    def __call__(self, entrant: Entrant) -> float:
        """Return what an entrant keeps."""
        found = _sums(entrant, self.texts)
        kept = {name: self._kept(name, found[name]) for name in self.texts}
        switching = kept.pop(SWITCHING)
        return (sum(kept.values()) / len(kept) + switching) / 2

    def _kept(self, name: str, found: Sums) -> float:
        gain = self.base[name].loss - self.oracle[name].loss
        return 100 * (self.base[name].loss - found.loss) / max(gain, _LEAST_GAIN)


def choose(objective: Objective, settings: Iterable[Setting], make: Callable[[Setting], Made]) -> Made:
    """Return what `make` makes of the setting that the objective likes best; its note says which it is."""
    tried = [(objective(make(setting)), number, setting) for number, setting in enumerate(settings)]
    value, _, best = max(tried, key=lambda one: (one[0], -one[1]))
    entrant = make(best)
    entrant.note = f"{said(best)} (best of {len(tried)}, {value:.1f} on tune)"
    return entrant


def grid(**values: Iterable[Any]) -> Iterator[Setting]:
    """Yield every combination of values."""
    for combination in itertools.product(*values.values()):
        yield dict(zip(values, combination, strict=True))


def said(setting: Setting) -> str:
    """Return a setting as words."""
    values = {name: f"{value:g}" if isinstance(value, float) else value for name, value in setting.items()}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def few(held: Held, rows: int) -> Held:
    """Return the first rows of a text."""
    return Held(held.name, held.rows[:rows], held.owners[:rows])


@torch.no_grad()
def _sums(entrant: Entrant, texts: dict[str, Held]) -> dict[str, Sums]:
    return {name: sums(held, entrant.answer(held)) for name, held in texts.items()}
