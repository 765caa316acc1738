import dataclasses
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.methods import multitask
from benchmarks.quality.world import World
from moehub.experts import training


def test_it_sees_the_text_of_all(bench: World) -> None:
    """As many steps as all experts together, on every contributor's text."""
    pool = multitask.pool(bench)
    for name in bench.names:
        assert all(example in pool for example in bench.examples(name))
    config, own = multitask.settings(bench, ranks=3), bench.setup.expert
    assert config.max_steps == 3 * (own.max_steps or 0)
    assert (config.rank, config.alpha) == (3 * own.rank, 3 * own.alpha)
    assert config.batch_size == own.batch_size


def test_what_was_trained_is_kept(bench: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second time nothing is trained, and the rate is the one that did best on the texts for tuning."""
    world = dataclasses.replace(bench, folder=tmp_path)
    (tmp_path / "seed-0").mkdir()
    (tmp_path / "seed-0" / "experts").symlink_to(bench.folder / "seed-0" / "experts")
    trained: list[tuple[float, int | None]] = []

    def train(*arguments: Any) -> Any:
        trained.append((arguments[-1].learning_rate, arguments[-1].max_steps))
        return training.train(*arguments)

    monkeypatch.setattr(multitask, "train", train)
    first = multitask.make(world, ranks=1)
    assert [steps for _, steps in trained] == [1, 1, 1, 3]
    assert trained[-1][0] in {rate for rate, _ in trained[:3]}
    again = multitask.make(world, ranks=1)
    assert len(trained) == 4
    assert again.note == first.note
