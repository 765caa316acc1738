"""Runs that take a fraction of a second: a form of two linears, and nodes whose training is arithmetic."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moehub.card import BasePin
from moehub.experts.settings import TrainConfig
from moehub.federation.form import Form
from moehub.federation.journal import Event, Journal
from moehub.federation.server.run import run
from moehub.federation.settings import FederationConfig
from tests.federation.grid import Clock, FakeNode, LocalGrid, Respond

FORM = Form(
    base=BasePin(reference="tiny", digest="ab" * 32, tokenizer="cd" * 32),
    vocabulary=50,
    targets=("down_proj", "q_proj"),
    linears={"base_model.model.layers.0.q_proj": [8, 6], "base_model.model.layers.0.down_proj": [12, 8]},
)


def settings(**changes: Any) -> FederationConfig:
    """Return the settings of a short run; those of `TrainConfig` go there."""
    train: dict[str, Any] = {
        "rank": 2,
        "alpha": 4.0,
        "batch_size": 2,
        "context_length": 64,
        "pair_bits": 8,
        "triple_bits": 9,
        "suppress_below": 0,
    }
    small: dict[str, Any] = {"base": "tiny", "rounds": 2, "steps": 4, "deadline": 100.0, "wait": 50.0}
    for name, value in changes.items():
        (train if name in TrainConfig.__dataclass_fields__ and name != "clip" else small)[name] = value
    return FederationConfig(**small, train=TrainConfig(**train))


def nodes(count: int, *, domain: str = "law", first: int = 1, **facts: Any) -> dict[int, Respond]:
    """Return fake nodes of one domain: ids from 1001 on, seeds from `first` on."""
    return {1000 + seed: FakeNode(FORM, seed, domain, **facts) for seed in range(first, first + count)}


def conduct(
    output: Path, grid: LocalGrid | dict[int, Respond], config: FederationConfig | None = None, **options: Any
) -> list[Path]:
    """Run a federation to its end, without waiting."""
    clock = options.pop("clock", None) or Clock()
    grid = grid if isinstance(grid, LocalGrid) else LocalGrid(grid)
    options = {"resume": False, "sleep": clock.sleep, "clock": clock, **options}
    return run(grid, config or settings(), FORM, output, **options)


def events(output: Path, *kinds: type[Any]) -> list[Any]:
    """Return the journal's events of some kinds."""
    return [entry.event for entry in Journal(output).entries() if isinstance(entry.event, kinds)]


def only(found: Iterable[Event]) -> Any:
    """Return the one event that there is."""
    (one,) = found
    return one
