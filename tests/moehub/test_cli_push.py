import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub import files
from moehub.cli import main
from moehub.hub.folder import FolderHub
from tests.published import paper_expert, paper_moe


@pytest.fixture
def law(tmp_path: Path) -> Path:
    return paper_expert(tmp_path / "law")


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub(tmp_path / "hub")


def push(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["push", *map(str, arguments)])


def test_a_push_says_which_commit_it_made_and_where(law: Path, hub: FolderHub) -> None:
    """What is printed first is what `moehub pull` takes."""
    result = push(law, "acme/law", "--hub", hub.root, "--message", "first")
    commit = hub.experts()[0].commit
    assert (result.exit_code, result.stdout.splitlines()[0]) == (0, f"acme/law@{commit}")
    assert (hub.root / "acme" / "law" / "messages" / commit).read_text() == "first\n"


def test_json_holds_the_commit(law: Path, hub: FolderHub) -> None:
    """For scripts."""
    printed = json.loads(push(law, "acme/law", "--hub", hub.root, "--json").stdout)
    commit = hub.experts()[0].commit
    url = (hub.root / "acme" / "law" / "commits" / commit).as_uri()
    assert printed == {"repo": "acme/law", "commit": commit, "url": url, "hub": hub.location}


def test_a_dry_run_shows_every_file_and_sends_nothing(law: Path, hub: FolderHub) -> None:
    """Names, digests, size and target."""
    printed = json.loads(push(law, "acme/law", "--hub", hub.root, "--dry-run", "--json").stdout)
    weights = files.sha256(law / "adapter_model.safetensors")
    assert (printed["kind"], printed["files"]["adapter_model.safetensors"]) == ("expert", weights)
    text = push(law, "acme/law", "--hub", hub.root, "--dry-run").stdout
    assert f"{weights[:12]}  adapter_model.safetensors" in text
    assert f"would push the expert law, {printed['bytes']:,} bytes, to acme/law on {hub.location}" in text
    assert not hub.root.exists()


def test_the_hub_may_come_from_the_environment(law: Path, hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """MOEHUB_HUB holds for a whole shell."""
    monkeypatch.setenv("MOEHUB_HUB", str(hub.root))
    assert push(law, "acme/law").exit_code == 0
    assert [listing.repo for listing in hub.experts()] == ["acme/law"]


def test_what_is_no_expert_is_refused_in_one_sentence(tmp_path: Path, hub: FolderHub) -> None:
    """With the command that makes one."""
    (tmp_path / "notes").mkdir()
    result = push(tmp_path / "notes", "acme/law", "--hub", hub.root)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "`moehub train-expert` makes one" in result.stderr
    assert not hub.root.exists()


def test_a_moe_whose_lock_names_this_machine_is_published_with_a_note(tmp_path: Path, hub: FolderHub) -> None:
    """The note goes to standard error; the result stays alone."""
    moe = paper_moe(tmp_path / "moe", source="/home/me/law")
    result = push(moe, "acme/moe", "--hub", hub.root, "--json")
    assert json.loads(result.stdout)["repo"] == "acme/moe"
    assert "note: merge.lock says where on this machine" in result.stderr


@pytest.mark.parametrize("repo", ["law", "../x/law"])
def test_a_repo_that_cannot_be_is_refused(law: Path, hub: FolderHub, repo: str) -> None:
    """Also in a dry run."""
    for arguments in ([], ["--dry-run"]):
        result = push(law, repo, "--hub", hub.root, *arguments)
        assert (result.exit_code, "expected org/name" in result.stderr) == (1, True)
