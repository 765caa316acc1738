from pathlib import Path

import pytest

from moehub import base as bases
from moehub.errors import DataError, ExpertError, TrainingError
from moehub.experts.examples import Text
from moehub.experts.preview import preview
from moehub.experts.training import train
from tests.experts.trainings import COMPLETIONS, TEXTS, settings


def test_preview_tells_what_training_will_do(base_folder: Path, tmp_path: Path) -> None:
    """Examples, tokens and steps are those on the card afterwards; nothing is written."""
    base, config = bases.find(str(base_folder)), settings(max_steps=None, epochs=1)
    planned = preview(base, "sums", COMPLETIONS, tmp_path / "sums", config)
    assert list(tmp_path.iterdir()) == []
    card = train(base, "sums", COMPLETIONS, tmp_path / "sums", config).card
    (stage,) = card.stages
    assert (planned.kind, planned.examples, planned.tokens, planned.steps) == (
        stage.kind,
        stage.examples,
        stage.tokens,
        stage.steps,
    )
    assert card.metrics is not None
    assert planned.held_out_tokens == card.metrics.tokens
    assert planned.examples + planned.held_out == len(COMPLETIONS)


def test_preview_refuses_what_training_would(base_folder: Path, tmp_path: Path) -> None:
    """A dry run finds the faults without training."""
    base = bases.find(str(base_folder))
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    with pytest.raises(TrainingError, match="is no expert"):
        preview(base, "law", TEXTS, tmp_path / "taken", settings())
    with pytest.raises(ExpertError, match="name 'A B'"):
        preview(base, "law", TEXTS, tmp_path / "law", settings(), name="A B")
    with pytest.raises(DataError, match="nothing to learn"):
        preview(base, "law", [Text("")], tmp_path / "law", settings())


def test_preview_counts_what_is_too_long(base_folder: Path, tmp_path: Path) -> None:
    """Skipped examples are counted."""
    config = settings(context_length=8, too_long="skip")
    planned = preview(bases.find(str(base_folder)), "sums", COMPLETIONS, tmp_path / "sums", config)
    assert planned.left_out == len(COMPLETIONS) - planned.examples - planned.held_out > 0
