import errno
import json
from pathlib import Path

import pytest
from safetensors import SafetensorError

from moehub.errors import TrainingError
from moehub.experts import checkpoints
from moehub.experts.settings import TrainConfig


def _run(**changes: object) -> dict[str, object]:
    return checkpoints.fingerprint(
        base=str(changes.pop("base", "digest of the base")),
        examples=changes.pop("examples", ["one", "two"]),  # type: ignore[arg-type]
        config=TrainConfig(**changes.pop("config", {})),  # type: ignore[arg-type]
        processes=int(changes.pop("processes", 1)),  # type: ignore[call-overload]
    )


def _checkpoint(folder: Path, step: int, *, whole: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    if whole:
        checkpoints.mark(path, step=step, tokens=10 * step, seconds=0.5)
    return path


def test_working_folder_stands_beside_the_output(tmp_path: Path) -> None:
    """Its name says what it belongs to, also for a relative output."""
    assert checkpoints.working_folder(tmp_path / "law") == tmp_path / "law.training"
    assert checkpoints.working_folder(Path("law")) == Path.cwd() / "law.training"


def test_last_checkpoint_is_the_newest_whole_one(tmp_path: Path) -> None:
    """Nine comes before ten, and one that was cut short, or damaged, does not count."""
    folder = tmp_path / "law.training"
    checkpoints.begin(folder, _run())
    _checkpoint(folder, 9)
    newest = _checkpoint(folder, 10)
    _checkpoint(folder, 11, whole=False)
    (_checkpoint(folder, 12, whole=False) / "moehub.json").write_text("{")
    assert checkpoints.last(folder, _run()) == checkpoints.Checkpoint(newest, 10, 100, 0.5)


def test_without_a_checkpoint_there_is_nothing_to_resume(tmp_path: Path) -> None:
    """No folder, no description of the run, or no checkpoint yet."""
    folder = tmp_path / "law.training"
    assert checkpoints.last(folder, _run()) is None
    folder.mkdir()
    assert checkpoints.last(folder, _run()) is None
    checkpoints.begin(folder, _run())
    assert checkpoints.last(folder, _run()) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base": "another"}, "base was"),
        ({"examples": ["two", "one"]}, "data was"),
        ({"config": {"rank": 8}}, "rank was 16, now it is 8"),
        ({"processes": 2}, "processes was 1, now it is 2"),
    ],
)
def test_another_training_is_not_resumed(tmp_path: Path, change: dict[str, object], named: str) -> None:
    """Other data, settings, base or processes: the sentence names what differs."""
    folder = tmp_path / "law.training"
    checkpoints.begin(folder, _run())
    _checkpoint(folder, 5)
    with pytest.raises(TrainingError) as caught:
        checkpoints.last(folder, _run(**change))
    assert named in str(caught.value)
    assert str(caught.value).count("\n") == 1


def test_settings_that_no_step_depends_on_may_change(tmp_path: Path) -> None:
    """The licence and what is counted afterwards can still be decided when resuming."""
    folder = tmp_path / "law.training"
    checkpoints.begin(folder, _run())
    _checkpoint(folder, 5)
    changed = _run(
        config={
            "license": "mit",
            "suppress_below": 9,
            "pair_bits": 12,
            "triple_bits": 0,
            "features": True,
            "save_every": 1,
        }
    )
    assert checkpoints.last(folder, changed) is not None


def test_begin_empties_the_folder(tmp_path: Path) -> None:
    """Checkpoints of another training are gone when a new one begins."""
    folder = tmp_path / "law.training"
    checkpoints.begin(folder, _run())
    _checkpoint(folder, 5)
    checkpoints.begin(folder, _run())
    assert [path.name for path in folder.iterdir()] == ["run.json"]
    assert json.loads((folder / "run.json").read_text()) == _run()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail at inline_container.cc:664] . PytorchStreamWriter failed writing file data/0"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_is_one_sentence_and_whole_checkpoints_stay(tmp_path: Path, error: Exception) -> None:
    """However a library says it; what was half written makes room."""
    whole, broken = _checkpoint(tmp_path, 5), _checkpoint(tmp_path, 10, whole=False)
    sentence = "is full: free some space and go on with --resume"
    with pytest.raises(TrainingError, match=sentence), checkpoints.kept_when_full(tmp_path):
        raise error
    assert (whole.exists(), broken.exists()) == (True, False)


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), RuntimeError("shapes do not fit")])
def test_other_errors_are_left_alone(tmp_path: Path, error: Exception) -> None:
    """Only a full disk is called a full disk."""
    broken = _checkpoint(tmp_path, 10, whole=False)
    with pytest.raises(type(error), match=str(error)[:9].replace("[", ".")), checkpoints.kept_when_full(tmp_path):
        raise error
    assert broken.exists()
