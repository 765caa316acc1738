import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks.quality.setup import small
from benchmarks.quality.texts import GENERIC, Domain, Texts, said
from benchmarks.quality.world import PAIR_BITS, TRIPLE_BITS, World
from moehub import base as bases
from moehub.experts.examples import Completion, Example, Text
from tests.builders import tiny_base, tiny_expert

SAYINGS = {
    "code": "def add(a, b): return a + b. class Sum: pass. ",
    "law": "the court finds that the lessee shall pay the rent. ",
    "math": "12 + 30 = 42. 7 + 8 = 15. 3 - 1 = 2. ",
}
"""Domains in the order of their names; math is asked and answered."""


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A small world of the bench, with random experts in it."""
    return make_bench(tmp_path_factory.mktemp("bench"))


def make_bench(folder: Path) -> World:
    """Save a base and three random experts of one shape, and return the world that they are in."""
    base, setup = tiny_base(folder / "base"), small()
    for number, (name, saying) in enumerate(SAYINGS.items()):
        tiny_expert(
            folder / "seed-0" / "experts" / name,
            base,
            name=name,
            rank=setup.expert.rank,
            targets="all-linear",
            text=saying * 20,
            seed=number,
            pair_bits=PAIR_BITS,
            triple_bits=TRIPLE_BITS,
        )
    generic = _generic()
    read = tuple(said(example) for example in generic.train)
    texts = Texts(tuple(map(_domain, SAYINGS)), (_plain("none", "una frase que nadie conoce. "),), generic, read)
    setup = dataclasses.replace(setup, expert=dataclasses.replace(setup.expert, max_steps=1))
    return World(folder, texts, setup, bases.find(str(base)), 0)


def same(left: torch.Tensor, right: torch.Tensor) -> None:
    """Compare what was computed in two ways in float32."""
    torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4)


def _domain(name: str) -> Domain:
    if name != "math":
        return _plain(name, SAYINGS[name])
    return _splits(name, lambda number: Completion("What is it? ", SAYINGS[name] * (3 + number % 2)))


def _plain(name: str, saying: str) -> Domain:
    return _splits(name, lambda number: Text(f"{number} {saying * (4 + number % 3)}"))


def _generic() -> Domain:
    return _plain(GENERIC, "something in plain English, of no domain at all, that anybody might say. ")


def _splits(name: str, example: Callable[[int], Example]) -> Domain:
    examples = [example(number) for number in range(14)]
    return Domain(name, tuple(examples[:8]), tuple(examples[8:11]), tuple(examples[11:]))
