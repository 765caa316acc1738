"""The demo's settings."""

from dataclasses import dataclass, field
from typing import Literal

from moehub.demo.base import BaseConfig
from moehub.demo.corpora import Sizes
from moehub.experts.settings import TrainConfig
from moehub.router.settings import RouterSettings


def _expert() -> TrainConfig:
    return TrainConfig(
        rank=16, alpha=32, learning_rate=6e-3, max_steps=160, batch_size=4, holdout=0.02, save_every=1_000_000
    )


@dataclass(frozen=True)
class Share:
    """How the contributors of one domain train its expert together; every expert learns from as many rows as alone."""

    nodes: int = 2
    """Contributors of each domain: its documents are dealt to them in turn."""
    rounds: int = 2
    aggregation: Literal["ffa", "product"] = "product"
    learning_rate: float = 6e-3
    """On the small base."""


@dataclass(frozen=True)
class DemoConfig:
    """How much is read, trained and shown; chosen on the texts for tuning, and shrunk by tests."""

    sizes: Sizes = field(default_factory=Sizes)
    base: BaseConfig = field(default_factory=BaseConfig)
    """Of the small base, where none is given; its seed is `seed`."""
    base_share: int = 80_000
    """Characters of each contributor's training text that the small base is trained on too."""
    expert: TrainConfig = field(default_factory=_expert)
    """Of each expert; its seed is `seed`."""
    given_base_rate: float = 3e-4
    """Learning rate of experts on a base that was given: larger models learn with smaller steps."""
    router: RouterSettings = field(default_factory=RouterSettings)
    share: Share = field(default_factory=Share)
    """Of a federated demo."""
    seed: int = 0
    """Draws the exercises and the turns, and starts every training."""
