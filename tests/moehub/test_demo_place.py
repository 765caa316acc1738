"""The output folder: emptied of an earlier demo, and of nothing else."""

from pathlib import Path

import pytest

from moehub.demo.place import make_place
from moehub.errors import ConfigError


def test_a_new_folder_is_made(tmp_path: Path) -> None:
    """Folders on the way are made too."""
    place = make_place(tmp_path / "a" / "b")
    assert place.folder == tmp_path / "a" / "b"
    assert place.folder.is_dir()


def test_everything_of_an_earlier_demo_goes(tmp_path: Path) -> None:
    """Nothing stale can be taken for a result of this run."""
    place = make_place(tmp_path / "out")
    for folder in (place.base, place.hub, place.moe, place.expert("law")):
        folder.mkdir(parents=True)
    for file in (place.json, place.html, place.generic):
        file.write_text("old")
    make_place(tmp_path / "out")
    assert [path.name for path in place.folder.iterdir()] == [".moehub-demo"]


def test_what_somebody_put_beside_it_stays(tmp_path: Path) -> None:
    """Only what a demo makes is removed."""
    place = make_place(tmp_path / "out")
    (place.folder / "notes.txt").write_text("mine")
    make_place(tmp_path / "out")
    assert (place.folder / "notes.txt").read_text() == "mine"


def test_a_folder_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    """A folder called experts may be anybody's: it is left as it is."""
    (tmp_path / "experts").mkdir()
    with pytest.raises(ConfigError, match=r"holds something else than a demo, .*choose another --output"):
        make_place(tmp_path)
    assert (tmp_path / "experts").is_dir()


def test_a_file_is_refused(tmp_path: Path) -> None:
    """The output is a folder."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        make_place(tmp_path / "out")
