import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from moehub import base as bases
from moehub.base import Base
from moehub.card import CURVES_FILE, STATISTICS_FILE, Privacy
from moehub.errors import BaseModelError, ConfigError, ExpertError
from moehub.experts import lineage
from moehub.experts.folder import Expert, open_expert
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics
from tests.builders import tiny_base, tiny_expert


@pytest.fixture(scope="module")
def base(base_folder: Path) -> Base:
    return bases.find(str(base_folder))


@pytest.fixture(scope="module")
def start(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Expert:
    return open_expert(tiny_expert(tmp_path_factory.mktemp("start") / "law", base_folder))


def test_a_later_stage_has_the_shape_of_the_adapter_it_starts_from(base: Base, start: Expert) -> None:
    """Rank, alpha and targets are the start's; everything else is as it was set."""
    config = lineage.continued(TrainConfig(learning_rate=0.5), start, base)
    assert (config.rank, config.alpha, config.targets) == (4, 8.0, ("down_proj", "q_proj", "v_proj"))
    assert (config.learning_rate, config.method) == (0.5, "lora")


def test_another_shape_is_refused(base: Base, start: Expert) -> None:
    """An adapter cannot change its rank; the one it has may be named."""
    with pytest.raises(ConfigError, match="rank = 32, there it is 4"):
        lineage.continued(TrainConfig(rank=32), start, base)
    assert lineage.continued(TrainConfig(rank=4), start, base).rank == 4


def test_an_expert_of_another_base_is_refused(start: Expert, tmp_path: Path) -> None:
    """Its adapter means nothing there."""
    other = bases.find(str(tiny_base(tmp_path / "other", seed=9)))
    with pytest.raises(BaseModelError, match="is not its expert"):
        lineage.continued(TrainConfig(), start, other)


def test_adapters_of_uneven_shape_are_refused(base: Base, base_folder: Path, tmp_path: Path) -> None:
    """PEFT writes ranks by pattern; no setting of ours makes such an adapter."""
    uneven = open_expert(tiny_expert(tmp_path / "uneven", base_folder, rank_pattern={"q_proj": 2}))
    with pytest.raises(ExpertError, match="rank_pattern"):
        lineage.continued(TrainConfig(), uneven, base)


def _counted(start: Expert, **changes: Any) -> Statistics:
    return dataclasses.replace(start.statistics(), **changes)


def test_counts_add_up(start: Expert) -> None:
    """What was counted before is public already, so it may be added to."""
    both = lineage.added(_counted(start), start)
    assert torch.equal(both.unigrams, 2 * start.statistics().unigrams)


def test_counts_in_other_buckets_are_refused(start: Expert) -> None:
    """They say something else."""
    with pytest.raises(ExpertError, match="pair_bits was 10, now it is 9"):
        lineage.added(_counted(start, pairs=torch.zeros(512, dtype=torch.int64)), start)


def test_noise_is_for_all_stages_or_none(start: Expert) -> None:
    """Counts without noise beside it would give it away."""
    private = Privacy(1.0, 1e-6, 256, {"unigrams": 3.0})
    with pytest.raises(ExpertError, match="train all stages with --private, or none"):
        lineage.added(_counted(start, private=private), start)


def test_what_two_releases_hide_adds_up(start: Expert, monkeypatch: pytest.MonkeyPatch) -> None:
    """ε and δ are sums: the same document may have been in both."""
    private = Privacy(1.0, 1e-6, 256, {"unigrams": 3.0})
    counted = _counted(start, private=private)
    monkeypatch.setattr(Expert, "statistics", lambda _: counted)
    both = lineage.added(counted, start).private
    assert both is not None
    assert (both.epsilon, both.delta, both.clip) == (2.0, 2e-6, 256)
    assert both.sigma == {"unigrams": pytest.approx(4.2426, abs=1e-3)}


def test_a_start_without_counts_adds_none(base_folder: Path, tmp_path: Path) -> None:
    """It may have been trained elsewhere."""
    folder = tiny_expert(tmp_path / "law", base_folder)
    counted = open_expert(folder).statistics()
    start = open_expert(folder)
    (folder / STATISTICS_FILE).unlink()
    assert torch.equal(lineage.added(counted, start).unigrams, counted.unigrams)


@pytest.mark.parametrize("content", ["[]", "{", '{"stages": 3}', '{"stages": [3]}'])
def test_curves_that_are_none_are_passed_over(base_folder: Path, tmp_path: Path, content: str) -> None:
    """They are for looking at; a stranger's may be anything."""
    folder = tiny_expert(tmp_path / "law", base_folder)
    start = open_expert(folder)
    (folder / CURVES_FILE).write_text(content)
    assert lineage.curves(start) == []
