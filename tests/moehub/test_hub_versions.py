"""Versions on the way to a hub and back: they grow, and an old one is not taken for a new one."""

from pathlib import Path

import pytest

from moehub import files
from moehub.card import CARD_FILE, README, read_card
from moehub.errors import HubError
from moehub.hub import Hub, seen
from moehub.hub.model_card import render_expert
from tests.published import paper_card, paper_expert, paper_moe

REPO = "acme/law"
# huggingface_hub uploads with an argument that httpx2 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(either_hub: Hub) -> Hub:
    return either_hub


def push(hub: Hub, folder: Path) -> str:
    return hub.push(folder, REPO, message="new").commit


def version(folder: Path) -> int:
    return read_card(folder).version


def test_another_expert_of_the_same_version_gets_the_next_one(hub: Hub, tmp_path: Path) -> None:
    """In the publisher's own folder too, and in the model card's table; every pinned file stays as it was."""
    push(hub, paper_expert(tmp_path / "law"))
    second = paper_expert(tmp_path / "second", paper_card("law"), weights=b"better")
    (second / README).write_text(render_expert(read_card(second)))
    before = read_card(second)
    push(hub, second)
    hub.pull(REPO, None, tmp_path / "pulled")
    assert (version(second), version(tmp_path / "pulled")) == (2, 2)
    assert read_card(second).files == before.files
    for folder in (second, tmp_path / "pulled"):
        assert "| version | 2 |" in (folder / README).read_text()


def test_the_version_jumps_over_all_that_the_hub_has(hub: Hub, tmp_path: Path) -> None:
    """One more than the newest."""
    push(hub, paper_expert(tmp_path / "law", paper_card(version=7)))
    second = paper_expert(tmp_path / "second", paper_card("law", version=3), weights=b"better")
    push(hub, second)
    assert version(second) == 8


def test_a_newer_version_stays_as_it_is(hub: Hub, tmp_path: Path) -> None:
    """As `moehub train-expert --overwrite` counts."""
    push(hub, paper_expert(tmp_path / "law"))
    push(hub, second := paper_expert(tmp_path / "second", paper_card("law", version=5), weights=b"better"))
    assert version(second) == 5


def test_the_same_again_pushes_nothing_and_raises_nothing(hub: Hub, tmp_path: Path) -> None:
    """Neither from the folder that was pushed, nor from the one that was pulled."""
    first = push(hub, folder := paper_expert(tmp_path / "law"))
    before = files.tree_digest(folder)
    hub.pull(REPO, None, tmp_path / "pulled")
    assert [push(hub, folder), push(hub, tmp_path / "pulled")] == [first, first]
    assert (files.tree_digest(folder), version(tmp_path / "pulled")) == (before, 1)


def test_the_same_expert_under_an_older_version_takes_the_version_of_the_hub(hub: Hub, tmp_path: Path) -> None:
    """A copy of the folder that was made before the push raised it."""
    push(hub, paper_expert(tmp_path / "law"))
    second = paper_expert(tmp_path / "second", paper_card("law"), weights=b"better")
    copy = paper_expert(tmp_path / "copy", paper_card("law"), weights=b"better")
    commit = push(hub, second)
    assert (push(hub, copy), version(copy)) == (commit, 2)


def test_another_text_is_another_publication(hub: Hub, tmp_path: Path) -> None:
    """The model card is signed too, so an old text cannot be replayed either."""
    push(hub, folder := paper_expert(tmp_path / "law"))
    (folder / README).write_text("# My law\n")
    push(hub, folder)
    assert version(folder) == 2
    assert "# My law" in (folder / README).read_text()


def test_a_version_below_one_that_was_seen_is_raised(hub: Hub, tmp_path: Path) -> None:
    """A hub that was set back does not set its publishers back."""
    seen.remember(hub.location, REPO, 4)
    push(hub, folder := paper_expert(tmp_path / "law"))
    assert version(folder) == 5


def test_a_card_that_is_none_does_not_count(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a stranger put into the repo stops nobody from publishing."""
    push(hub, folder := paper_expert(tmp_path / "law"))
    monkeypatch.setattr(type(hub), "peek", lambda *_: {CARD_FILE: b'{"version": 12}'})
    (folder / README).write_text("# My law\n")
    push(hub, folder)
    assert version(folder) == 1


def test_a_moe_has_no_version(hub: Hub, tmp_path: Path) -> None:
    """It is pushed as it is, over an expert too."""
    push(hub, paper_expert(tmp_path / "law"))
    push(hub, moe := paper_moe(tmp_path / "moe"))
    hub.pull(REPO, None, tmp_path / "pulled")
    assert files.tree_digest(tmp_path / "pulled") == files.tree_digest(moe)


def test_what_is_peeked_at_is_what_the_hub_holds(hub: Hub, tmp_path: Path) -> None:
    """The small files that are asked for; nothing where there is no such repo."""
    assert hub.peek(REPO, (CARD_FILE,)) == {}
    push(hub, folder := paper_expert(tmp_path / "law"))
    assert hub.peek("acme/other", (CARD_FILE,)) == {}
    assert hub.peek(REPO, (CARD_FILE, "missing")) == {CARD_FILE: (folder / CARD_FILE).read_bytes()}


def test_an_older_version_is_refused_as_a_replay(hub: Hub, tmp_path: Path) -> None:
    """With both versions and the cure; what stood at the destination stays."""
    first = push(hub, paper_expert(tmp_path / "law"))
    push(hub, paper_expert(tmp_path / "second", paper_card("law"), weights=b"better"))
    seen.remember(hub.location, REPO, 3)
    paper_expert(tmp_path / "pulled", weights=b"mine")
    before = files.tree_digest(tmp_path / "pulled")
    for revision in (None, "main"):
        with pytest.raises(HubError, match=r"version 2 of acme/law, but version 3 was seen.*acme/law@COMMIT"):
            hub.pull(REPO, revision, tmp_path / "pulled")
    assert files.tree_digest(tmp_path / "pulled") == before
    assert hub.pull(REPO, first, tmp_path / "pulled") == first
    assert version(tmp_path / "pulled") == 1


def test_what_is_pulled_is_remembered(hub: Hub, tmp_path: Path) -> None:
    """Also where a revision was named, and only the highest."""
    old = push(hub, paper_expert(tmp_path / "law", paper_card(version=2)))
    new = push(hub, paper_expert(tmp_path / "second", paper_card("law"), weights=b"better"))
    for commit in (old, new, old):
        hub.pull(REPO, commit, tmp_path / "pulled")
    assert seen.highest(hub.location, REPO) == 3


def test_a_refused_expert_is_not_remembered(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a bad one of a high version would lock the good ones out."""
    push(hub, paper_expert(tmp_path / "law", paper_card(version=9)))
    monkeypatch.setattr("moehub.hub.arrival._check_signature", _refuse)
    with pytest.raises(HubError, match="not signed"):
        hub.pull(REPO, None, tmp_path / "pulled")
    assert seen.highest(hub.location, REPO) is None


def _refuse(*_: object) -> None:
    raise HubError("not signed")


def test_a_state_that_cannot_be_kept_stops_no_pull(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said."""
    commit = push(hub, paper_expert(tmp_path / "law"))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("MOEHUB_STATE", str(tmp_path / "file" / "state"))
    assert hub.pull(REPO, None, tmp_path / "pulled") == commit
    assert "the versions seen on hubs cannot be kept" in capsys.readouterr().err
