import json
from pathlib import Path

import pytest

from moehub.card import CURVES_FILE, CURVES_PLOT
from moehub.experts import curves
from moehub.experts.curves import Curves


def test_numbers_are_kept_under_our_names() -> None:
    """Whatever a library calls them; what it logs beside them is not kept."""
    kept = Curves()
    assert kept.note(1, {"loss": 2.0, "rewards/accuracies": 0.5, "epoch": 0.1, "rewards/exact/mean": 1.0}) == {
        "loss": 2.0,
        "accuracy": 0.5,
        "reward exact": 1.0,
    }
    kept.note(2, {"loss": float("nan")})
    assert kept.values["loss"] == [(1, 2.0)]


def test_a_resumed_training_goes_on_with_its_curves(tmp_path: Path) -> None:
    """What the trainer logged before its checkpoint comes first; a step is kept once."""
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": [{"step": 1, "loss": 3.0}]}))
    kept = Curves()
    kept.load(tmp_path)
    kept.note(1, {"loss": 9.0})
    kept.note(2, {"loss": 2.0})
    assert kept.values == {"loss": [(1, 3.0), (2, 2.0)]}


def test_long_curves_are_thinned_to_what_a_page_shows() -> None:
    """Each point is the mean of its neighbours and stands at the last of them."""
    kept = Curves()
    for step in range(1, 1001):
        kept.note(step, {"loss": float(step)})
    points = kept.thinned()["loss"]
    assert len(points) == 334
    assert points[0] == (3, 2.0)
    assert points[-1] == (1000, 1000.0)


def test_curves_are_written_and_drawn(tmp_path: Path) -> None:
    """The numbers for machines, the figure for people."""
    stage = {"kind": "rl", "curves": {"reward": [(1, 0.1), (2, 0.3)], "kl": [(1, 0.0), (2, 0.1)]}}
    curves.write(tmp_path, [stage], title="how it was trained")
    assert json.loads((tmp_path / CURVES_FILE).read_text()) == {
        "stages": [{"kind": "rl", "curves": {"reward": [[1, 0.1], [2, 0.3]], "kl": [[1, 0.0], [2, 0.1]]}}]
    }
    assert (tmp_path / CURVES_PLOT).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_numbers_are_written_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    curves.write(tmp_path, [{"kind": "sft", "curves": {"loss": [(1, 1.0), (2, 0.5)]}}], title="x")
    assert [path.name for path in tmp_path.iterdir()] == [CURVES_FILE]
