from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import pytest
from torch import Tensor

from benchmarks.quality.method import Answer, Method, Routed, registered
from benchmarks.quality.methods import oracle
from benchmarks.quality.rows import SWITCHING, Held
from benchmarks.quality.tuning import Objective, choose, few, grid, said
from benchmarks.quality.world import World


@pytest.fixture
def _no_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look at the text that the table is made of."""

    def held(world: World, split: str) -> dict[str, Held]:
        assert split == "tune", "somebody looked at the text of the table"
        return original(world, split)

    original: Any = World._held
    monkeypatch.setattr(World, "_held", held)


@pytest.mark.usefixtures("_no_test")
@pytest.mark.parametrize("method", registered().values(), ids=registered())
def test_no_method_looks_at_the_test_text(bench: World, method: Method) -> None:
    """Whatever a method chooses, it chooses on the texts for tuning."""
    world = World(bench.folder, bench.texts, bench.setup, bench.base, bench.seed)
    entrant = method.make(world)
    assert entrant.bytes >= 0
    with pytest.raises(AssertionError, match="looked"):
        _ = world.test


@dataclass
class Worse:
    """The oracle with losses twice as large on some texts: what random experts are no better than, the base, is not."""

    bench: World
    texts: Collection[str]
    bytes: int = 0
    note: str = ""

    def answer(self, held: Held) -> Answer:
        answer = oracle.expert(self.bench).answer(held)
        return Answer(tuple(2 * row for row in answer.nats)) if held.name in self.texts else answer


def test_the_ends_of_the_scale(bench: World) -> None:
    """The base keeps nothing; the oracle keeps all, of the domains and of the text that switches."""
    objective = _gained(Objective.of(bench))
    assert objective(Worse(bench, objective.texts)) == pytest.approx(0)
    assert objective(oracle.expert(bench)) == pytest.approx(100)


def test_domains_and_switching_weigh_the_same(bench: World) -> None:
    """Half the value is the text that switches, the other the mean of the domains."""
    objective = _gained(Objective.of(bench))
    assert objective(Worse(bench, {SWITCHING, "law"})) == pytest.approx(100 * (2 / 3 + 0) / 2)
    assert objective(Worse(bench, {"law", "math"})) == pytest.approx(100 * (1 / 3 + 1) / 2)


def test_the_best_setting_is_made_and_said(bench: World) -> None:
    """Of the settings the one of the highest value is taken, and the note names it."""
    objective: Any = lambda entrant: entrant.bytes  # noqa: E731 (a stand-in)
    gate: Any = lambda _: Tensor()  # noqa: E731 (never called)
    best = choose(objective, grid(size=[3, 9, 5]), lambda setting: Routed(bench, gate, setting["size"]))
    assert (best.bytes, best.note) == (9, "size 9 (best of 3, 9.0 on tune)")


def test_a_setting_in_words() -> None:
    """Numbers are short."""
    assert said({"top_k": 2, "kappa": 0.3}) == "top_k 2, kappa 0.3"


def test_few_rows(bench: World) -> None:
    """Rows and owners are cut alike."""
    held = few(bench.tune["law"], 1)
    assert (len(held.rows), len(held.owners), held.name) == (1, 1, "law")


def _gained(objective: Objective) -> Objective:
    """Return the objective beside a base whose losses are twice the oracle's: random experts gain nothing."""
    doubled = {
        name: replace(one, nats=[2 * value for value in objective.oracle[name].nats])
        for name, one in objective.base.items()
    }
    return replace(objective, base=doubled)
