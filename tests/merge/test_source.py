from pathlib import Path

import pytest

from moehub.errors import AdmissionError, HubError, MergeError
from moehub.hub import open_hub
from moehub.merge.entrance import admitted
from tests.builders import tiny_expert
from tests.world import World


def test_a_hubs_expert_is_the_one_at_the_commit_asked_for(world: World, tmp_path: Path) -> None:
    """Without a revision the newest, with one the named; either way the source is pinned to a commit."""
    hub = open_hub(str(tmp_path / "hub"))
    commits = [
        hub.push(tiny_expert(tmp_path / f"v{seed}", world.base, name="law", seed=seed), "acme/law", message="x").commit
        for seed in (1, 2)
    ]
    newest = admitted("acme/law", hub=str(tmp_path / "hub"), workspace=tmp_path / "a")
    older = admitted(f"acme/law@{commits[0]}", hub=str(tmp_path / "hub"), workspace=tmp_path / "b")
    assert [newest.pinned, older.pinned] == [f"acme/law@{commits[1]}", f"acme/law@{commits[0]}"]
    assert newest.reference == older.reference == "acme/law"
    assert newest.expert.card.files != older.expert.card.files


def test_a_folder_has_no_commit(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is named by its absolute path, however it was written."""
    monkeypatch.chdir(world.experts["law"].parent)
    source = admitted("law", hub=None, workspace=tmp_path)
    assert (source.reference, source.commit, source.pinned) == (
        str(world.experts["law"]),
        None,
        str(world.experts["law"]),
    )


@pytest.mark.parametrize("reference", ["nowhere", "./a/b", "/a/b", "a/b/c", "../x"])
def test_what_cannot_be_a_repo_is_no_hubs_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    """A path that does not exist is said to be missing; no hub is asked for it."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(MergeError, match=r"there is no folder .*: expected an expert's folder, or org/name"):
        admitted(reference, hub="http://127.0.0.1:9", workspace=tmp_path)


def test_a_repo_that_a_hub_does_not_have(tmp_path: Path) -> None:
    """The hub's own sentence says so."""
    with pytest.raises(HubError):
        admitted("acme/nothing", hub=str(tmp_path), workspace=tmp_path / "w")


def test_a_folder_without_a_card_is_no_expert(tmp_path: Path) -> None:
    """An interrupted training leaves no card."""
    (tmp_path / "half").mkdir()
    with pytest.raises(AdmissionError, match="it is no expert"):
        admitted(str(tmp_path / "half"), hub=None, workspace=tmp_path)


def test_an_expert_without_statistics_has_none(world: World, tmp_path: Path) -> None:
    """Statistics are optional for an expert: arrow needs none."""
    law = tiny_expert(tmp_path / "law", world.base)
    source = admitted(str(law), hub=None, workspace=tmp_path)
    assert source.statistics is not None
    (law / "router_stats.safetensors").unlink()
    assert type(source)(source.reference, None, source.expert).statistics is None
