import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moehub import files


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    """The well-known digest of `abc`."""
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=6))
def test_json_is_the_same_for_equal_values(values: dict[str, int | str]) -> None:
    """The order in which keys were set does not show; the text reads back as the value."""
    reordered = dict(reversed(list(values.items())))
    assert files.to_json(values) == files.to_json(reordered)
    assert json.loads(files.to_json(values)) == values


def test_text_appears_whole_with_its_folders(tmp_path: Path) -> None:
    """Missing folders are made, what stood there is replaced, and nothing is left beside it."""
    path = tmp_path / "a" / "b.txt"
    files.write_text(path, "old")
    files.write_text(path, "new ü")
    assert (path.read_text(encoding="utf-8"), _names(path.parent)) == ("new ü", ["b.txt"])
    assert path.stat().st_mode & 0o777 == 0o644


def test_failed_write_leaves_the_old_text(tmp_path: Path) -> None:
    """Text that cannot be encoded changes nothing."""
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(UnicodeEncodeError):
        files.write_text(path, "\ud800")
    assert (path.read_text(), _names(tmp_path)) == ("old", ["a.txt"])


def test_tree_digest_is_of_names_and_bytes(tmp_path: Path) -> None:
    """Equal trees have equal digests; another byte, another name or another place have not."""

    def tree(name: str, **contents: str) -> str:
        for path, text in contents.items():
            files.write_text(tmp_path / name / path.replace("_", "/"), text)
        return files.tree_digest(tmp_path / name)

    assert tree("one", a="x", b_c="y") == tree("two", b_c="y", a="x")
    digests = {tree("one"), tree("three", a="x", b_c="z"), tree("four", a="x", b_d="y"), tree("five", a="x", b="y")}
    assert len(digests) == 4


def test_digest_of_names_is_that_of_the_tree(tmp_path: Path) -> None:
    """A folder's digest can be told from its files' digests alone, in any order, a name before its own folder."""
    for name in ("a/b", "a-c", "a.d"):
        files.write_text(tmp_path / name, name)
    digests = {name: files.sha256(tmp_path / name) for name in ("a.d", "a/b", "a-c")}
    assert files.digest_of(digests) == files.tree_digest(tmp_path)


def test_new_folder_appears_when_it_is_finished(tmp_path: Path) -> None:
    """Nothing stands at the place while it is being built, and nothing is left beside it."""
    with files.new_folder(tmp_path / "sub" / "new") as building:
        (building / "file").write_text("text")
        assert not (tmp_path / "sub" / "new").exists()
    assert ((tmp_path / "sub" / "new" / "file").read_text(), _names(tmp_path / "sub")) == ("text", ["new"])


@pytest.mark.parametrize("atomic", [True, False])
def test_new_folder_replaces_the_old_one(tmp_path: Path, atomic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old files are gone, also where the system cannot exchange folders in one step."""
    if not atomic:
        monkeypatch.setattr("ctypes.CDLL", lambda *_, **__: object())
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "old").touch()
    with files.new_folder(tmp_path / "new") as building:
        (building / "file").touch()
    assert (_names(tmp_path / "new"), _names(tmp_path)) == (["file"], ["new"])


def test_new_folder_can_be_read_by_others(tmp_path: Path) -> None:
    """Whatever the libraries that wrote the files thought of it."""
    with files.new_folder(tmp_path / "new") as building:
        (building / "file").touch(mode=0o600)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "new" / "file").stat().st_mode & 0o777 == 0o644


def test_failure_leaves_what_was_there(tmp_path: Path) -> None:
    """An error in the middle, an interruption included, changes nothing."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "old").touch()
    with pytest.raises(KeyboardInterrupt):
        _interrupted(tmp_path / "new")
    assert (_names(tmp_path / "new"), _names(tmp_path)) == (["old"], ["new"])


def _interrupted(path: Path) -> None:
    with files.new_folder(path) as building:
        (building / "file").touch()
        raise KeyboardInterrupt


def test_link_to_a_folder_stays_a_link(tmp_path: Path) -> None:
    """The folder that it leads to is replaced."""
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    with files.new_folder(tmp_path / "link") as building:
        (building / "file").touch()
    assert (tmp_path / "link").is_symlink()
    assert (_names(tmp_path / "disk" / "real"), _names(tmp_path), _names(tmp_path / "disk")) == (
        ["file"],
        ["disk", "link"],
        ["real"],
    )


def test_file_in_the_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    """It stays, and nothing is built."""
    (tmp_path / "new").write_text("mine")
    with pytest.raises(NotADirectoryError, match="new"), files.new_folder(tmp_path / "new"):
        pytest.fail("something was built")
    assert ((tmp_path / "new").read_text(), _names(tmp_path)) == ("mine", ["new"])


def test_relative_places_are_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the working folder in between moves nothing."""
    monkeypatch.chdir(tmp_path)
    with files.new_folder(Path("new")) as building:
        (building / "file").touch()
        os.chdir("/")
    assert _names(tmp_path / "new") == ["file"]


def test_a_new_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    """On success it takes the place of the old one, readable by others; on an error the old one stays alone."""
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), files.new_file(tmp_path / "file") as temporary:
        _half_written(temporary)
    assert ((tmp_path / "file").read_text(), _names(tmp_path)) == ("old", ["file"])
    with files.new_file(tmp_path / "file") as temporary:
        temporary.write_bytes(b"new")
    assert ((tmp_path / "file").read_text(), _names(tmp_path)) == ("new", ["file"])
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def _half_written(temporary: Path) -> None:
    temporary.write_bytes(b"ne")
    raise KeyboardInterrupt


def test_a_private_file_is_its_owners_alone_and_replaces_nothing_unasked(tmp_path: Path) -> None:
    """A key is never readable by others, nor written over by accident; nothing is left beside it."""
    path = tmp_path / "keys" / "key"
    files.write_private(path, b"first")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        files.write_private(path, b"second")
    assert path.read_bytes() == b"first"
    files.write_private(path, b"third", replace=True)
    assert path.read_bytes() == b"third"
    assert list(path.parent.iterdir()) == [path]
