import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub import files
from moehub.cli import main
from moehub.hub.folder import FolderHub
from tests.published import paper_expert


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    """A hub with two commits of one expert; the first is tagged."""
    made = FolderHub(tmp_path / "hub")
    for weights in (b"old", b"new"):
        made.push(paper_expert(tmp_path / "law", weights=weights), "acme/law", message="x")
        if weights == b"old":
            made.tag("acme/law", "v1.0")
    return made


def pull(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["pull", *map(str, arguments)])


def test_a_pull_takes_the_newest_commit(hub: FolderHub, tmp_path: Path) -> None:
    """And says which one it was."""
    result = pull("acme/law", tmp_path / "got", "--hub", hub.root)
    commit = hub.experts()[0].commit
    assert result.stdout == f"acme/law@{commit} is in {tmp_path / 'got'}, every file verified\n"
    assert files.tree_digest(tmp_path / "got") == commit


def test_a_pull_takes_the_revision_after_the_at_sign(hub: FolderHub, tmp_path: Path) -> None:
    """A tag here."""
    printed = json.loads(pull("acme/law@v1.0", tmp_path / "got", "--hub", hub.root, "--json").stdout)
    assert (tmp_path / "got" / "adapter_model.safetensors").read_bytes() == b"old"
    assert printed == {
        "repo": "acme/law",
        "commit": files.tree_digest(tmp_path / "got"),
        "hub": hub.location,
        "folder": str(tmp_path / "got"),
    }


def test_a_folder_with_something_else_in_it_is_not_replaced(hub: FolderHub, tmp_path: Path) -> None:
    """A slip of the keyboard loses nothing."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").write_bytes(b"png")
    result = pull("acme/law", tmp_path / "photos", "--hub", hub.root)
    assert (result.exit_code, "choose another folder" in result.stderr) == (1, True)
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["1.png"]


def test_a_damaged_commit_is_one_sentence_and_no_folder(hub: FolderHub, tmp_path: Path) -> None:
    """Nothing that could not be verified is left lying around."""
    commit = hub.experts()[0].commit
    (hub.root / "acme" / "law" / "commits" / commit / "adapter_model.safetensors").write_bytes(b"nex")
    result = pull("acme/law", tmp_path / "got", "--hub", hub.root)
    assert (result.exit_code, len(result.stderr.splitlines())) == (1, 1)
    assert "was changed after publication" in result.stderr
    assert not (tmp_path / "got").exists()
