import dataclasses

import pytest

from benchmarks.quality.method import Method, registered
from benchmarks.quality.methods import fedavg, flexolmo, learned, metamoe, phatgoose
from benchmarks.quality.rows import Held
from benchmarks.quality.world import World

_TRAINED = (
    "phatgoose",
    "flexolmo rows",
    "metamoe gate",
    "fedavg gates",
    "one gate",
    "one gate, balanced",
    "gates by layer",
    "gates by layer, balanced",
    "multitask LoRA",
    "multitask LoRA, rank × experts",
)


class Blind(World):
    """A world whose texts for the table nobody may see."""

    @property
    def test(self) -> dict[str, Held]:
        raise AssertionError("the texts for the table were looked at")


@pytest.mark.parametrize("name", _TRAINED)
def test_settings_are_chosen_without_the_texts_of_the_table(
    bench: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each method is made, and answers, from what it may see, and says what it chose."""
    for module, constants in (
        (phatgoose, {"STEPS": 2, "_TRIAL": 1}),
        (flexolmo, {"STEPS": 2, "_TRIAL": 1}),
        (metamoe, {"_TRIAL": 1, "_MOST": 2, "_PROXIES": 2}),
        (fedavg, {"ROUNDS": 2, "LOCAL": 1}),
        (learned, {"_TRIAL": 1, "_MOST": 2}),
    ):
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
    values = {each.name: getattr(bench, each.name) for each in dataclasses.fields(bench)}
    public = tuple(text.text for text in bench.texts.generic.train)  # type: ignore[union-attr]
    world = Blind(**{**values, "texts": dataclasses.replace(bench.texts, base=public)})
    method: Method = registered()[name]
    entrant = method.make(world)
    answer = entrant.answer(world.tune["law"])
    assert len(answer.nats) == len(world.tune["law"].rows)
    assert entrant.bytes > 0
    assert "rate" in entrant.note
    assert "tune loss" in entrant.note
