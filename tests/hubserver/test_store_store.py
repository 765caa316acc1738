"""A hub's folder: made where nothing is, opened where a hub is, and left alone where something else is."""

import stat
from pathlib import Path

import pytest

from moehub.errors import HubError
from moehub.hubserver.store.store import DATABASE, SECRET, Store, open_store


def test_only_its_owner_can_read_a_hub(store: Store) -> None:
    """It holds private repos, and the secret that signs addresses."""
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert stat.S_IMODE((store.root / SECRET).stat().st_mode) == 0o600


def test_the_secret_stays(store: Store) -> None:
    """Addresses that were signed before a restart are good after it."""
    assert len(store.secret) == 32
    assert open_store(store.root).secret == store.secret


def test_a_folder_without_a_hub_is_named(tmp_path: Path) -> None:
    """And no hub is made there by looking."""
    with pytest.raises(HubError, match=r"holds no hub .*moehub hub serve --root"):
        open_store(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    """A mistyped --root does not fill somebody's folder with blobs."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(HubError, match="holds something else than a hub"):
        open_store(tmp_path, create=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_of_that_name_with_files_is_left_alone(tmp_path: Path) -> None:
    """Only empty folders are taken for the beginning of a hub."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "mine").touch()
    with pytest.raises(HubError, match="holds something else than a hub"):
        open_store(tmp_path, create=True)


def test_a_hub_whose_making_was_cut_short_is_made(tmp_path: Path) -> None:
    """What a killed process left does not stand in the way."""
    (tmp_path / "blobs").mkdir()
    (tmp_path / f".{DATABASE}.x1y2").touch()
    assert open_store(tmp_path, create=True).root == tmp_path
