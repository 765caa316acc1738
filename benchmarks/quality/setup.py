"""What the bench trains, and how much of everything."""

import dataclasses
from dataclasses import dataclass, field

from benchmarks.quality.texts import Sizes
from moehub.demo.base import BaseConfig, bf16_is_quick
from moehub.experts.settings import TrainConfig


def _base() -> BaseConfig:
    return BaseConfig(
        vocabulary=8192,
        hidden=384,
        layers=4,
        heads=6,
        context=512,
        batch=8,
        steps=640,
        learning_rate=3e-3,
        spread=0.04,
    )


def _expert() -> TrainConfig:
    return TrainConfig(
        rank=8,
        alpha=16,
        learning_rate=6e-3,
        max_steps=60,
        batch_size=4,
        context_length=512,
        holdout=0.0,
        too_long="cut",
        save_every=1_000_000,
        dtype="bfloat16" if bf16_is_quick() else "float32",
    )


@dataclass(frozen=True)
class Setup:
    """The bench at one size."""

    sizes: Sizes = field(default_factory=Sizes)
    base: BaseConfig = field(default_factory=_base)
    """10 million parameters, where no base is named."""
    expert: TrainConfig = field(default_factory=_expert)
    expert_characters: int = 600_000
    """What one seed's contributor draws of the domain's text."""
    null_characters: int = 3_000_000
    """What the null expert counts of the base's text."""
    seeds: tuple[int, ...] = (0, 1, 2)
    tune_rows: int = 8
    """Of each text, for choosing settings."""
    test_rows: int = 14
    """Of each text, for the table."""
    turn: int = 64
    """Tokens until a text that switches does so."""
    turns: int = 8
    """In one such text."""
    switching: int = 24
    """Such texts."""


def small() -> Setup:
    """Return a size that runs in seconds, for tests."""
    setup = Setup()
    return dataclasses.replace(
        setup,
        sizes=Sizes(train=12_000, base=4_000, held=2_400, clip=600, generic=40_000, manual=4_000),
        base=dataclasses.replace(setup.base, vocabulary=512, hidden=32, layers=1, heads=2, context=128, steps=4),
        expert=dataclasses.replace(setup.expert, max_steps=2, context_length=128, rank=2, dtype="float32"),
        expert_characters=8_000,
        seeds=(0,),
        tune_rows=2,
        test_rows=2,
        turn=16,
        turns=3,
        switching=2,
    )
