"""Signatures on the way to a hub and back."""

import shutil
from pathlib import Path

import pytest

from moehub import files
from moehub.card import README, SIGNATURE_FILE, read_card
from moehub.errors import HubError, SigningError
from moehub.hub import Hub, open_hub
from moehub.hub.parcel import MOE_SIGNATURE
from moehub.signing.keyring import Keyring
from tests.published import paper_card, paper_expert, paper_moe
from tests.signing.signed import Publisher, publisher

REPO = "acme/law"
# huggingface_hub uploads with an argument that httpx2 renamed.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(either_hub: Hub) -> Hub:
    return either_hub


@pytest.fixture
def acme(tmp_path: Path) -> Publisher:
    return publisher(tmp_path / "keys of acme" / "key")


@pytest.fixture
def pulled(tmp_path: Path) -> Path:
    return tmp_path / "pulled"


def push(hub: Hub, folder: Path, signer: Publisher | None = None, repo: str = REPO) -> str:
    return hub.push(folder, repo, message="new", key=signer.key if signer else None).commit


def trust(who: Publisher, name: str = "acme") -> None:
    Keyring.open_default().pin(name, who.public)


def test_a_signed_expert_arrives(hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path) -> None:
    """Where its publisher's key is pinned, and where nobody pinned any; the signature travels with it."""
    commit = push(hub, paper_expert(tmp_path / "law"), acme)
    assert hub.pull(REPO, None, pulled) == commit
    trust(acme)
    assert hub.pull(REPO, None, pulled) == commit
    assert (pulled / SIGNATURE_FILE).read_bytes() == (tmp_path / "law" / SIGNATURE_FILE).read_bytes()


def test_an_unsigned_expert_of_a_pinned_publisher_is_refused(
    hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path
) -> None:
    """The publisher is named, and the destination does not appear; with a key for one repo, others arrive as before."""
    push(hub, folder := paper_expert(tmp_path / "law"))
    push(hub, folder, repo="acme/other")
    trust(acme, REPO)
    hub.pull("acme/other", None, tmp_path / "other")
    trust(acme)
    for repo, signer in ((REPO, REPO), ("acme/other", "acme")):
        with pytest.raises(HubError, match=rf"(?s)not what {signer} signed.*there is no expert\.sig.*ask {signer};"):
            hub.pull(repo, None, pulled)
    assert not pulled.exists()


def test_a_signature_that_was_dropped_is_missed(hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path) -> None:
    """By whoever pinned the key; whoever drops it is told."""
    push(hub, folder := paper_expert(tmp_path / "law"), acme)
    trust(acme)
    hub.pull(REPO, None, pulled)
    (folder / SIGNATURE_FILE).unlink()
    push(hub, folder)
    with pytest.raises(HubError, match="not signed"):
        hub.pull(REPO, None, pulled)


def test_dropping_a_signature_is_said(
    hub: Hub, acme: Publisher, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A push without --sign of what was signed until now."""
    push(hub, folder := paper_expert(tmp_path / "law"), acme)
    (folder / SIGNATURE_FILE).unlink()
    capsys.readouterr()
    push(hub, folder)
    assert "was signed until now" in capsys.readouterr().err


def test_an_expert_signed_by_another_is_refused(hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path) -> None:
    """Whoever may write to the hub still lacks the key."""
    push(hub, paper_expert(tmp_path / "law"), publisher(tmp_path / "thief" / "key"))
    trust(acme)
    with pytest.raises(HubError, match="it is signed with the key"):
        hub.pull(REPO, None, pulled)


def test_one_repo_may_have_a_key_of_its_own(hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path) -> None:
    """It goes before the publisher's."""
    lawyer = publisher(tmp_path / "lawyer" / "key")
    push(hub, paper_expert(tmp_path / "law"), lawyer)
    trust(acme)
    trust(lawyer, REPO)
    hub.pull(REPO, None, pulled)


def test_an_expert_is_not_handed_out_under_the_name_of_another(
    hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path
) -> None:
    """The signature says which repo it was made for."""
    push(hub, paper_expert(tmp_path / "law"), acme)
    trust(acme)
    hub.pull(REPO, None, pulled)
    with pytest.raises(HubError, match="signed for another repo"):
        push(hub, pulled, repo="acme/medicine")


def test_the_same_signed_expert_again_makes_no_new_commit(
    hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path
) -> None:
    """Two signatures over the same files differ, so the first one is kept; a pulled copy can be pushed as it is."""
    first = push(hub, folder := paper_expert(tmp_path / "law"), acme)
    before = files.tree_digest(folder)
    hub.pull(REPO, None, pulled)
    assert [push(hub, folder, acme), push(hub, folder), push(hub, pulled)] == [first, first, first]
    assert (files.tree_digest(folder), read_card(folder).version) == (before, 1)


def test_signing_what_is_published_already_only_adds_the_signature(
    hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path
) -> None:
    """The version stays."""
    push(hub, folder := paper_expert(tmp_path / "law"))
    push(hub, folder, acme)
    trust(acme)
    hub.pull(REPO, None, pulled)
    assert read_card(pulled).version == 1


def test_a_new_key_signs_anew(hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path) -> None:
    """Though the old signature holds."""
    push(hub, folder := paper_expert(tmp_path / "law"), acme)
    push(hub, folder, fresh := publisher(tmp_path / "fresh" / "key"))
    trust(fresh)
    hub.pull(REPO, None, pulled)


def test_a_signature_that_does_not_cover_what_travels_is_not_published(
    hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path
) -> None:
    """A changed text or a raised version needs a new one; until then the folder and the hub stay as they were."""
    commit = push(hub, folder := paper_expert(tmp_path / "law"), acme)
    (folder / README).write_text("# My law\n")
    before = files.tree_digest(folder)
    with pytest.raises(HubError, match=r"expert\.sig does not sign what would be published"):
        push(hub, folder)
    assert files.tree_digest(folder) == before
    assert hub.pull(REPO, None, pulled) == commit
    push(hub, folder, acme)
    trust(acme)
    hub.pull(REPO, None, pulled)
    assert read_card(pulled).version == 2


def test_a_moe_is_signed_as_a_whole(hub: Hub, acme: Publisher, tmp_path: Path, pulled: Path) -> None:
    """So that no MoE can stand in for the experts of a pinned publisher."""
    push(hub, moe := paper_moe(tmp_path / "moe"), repo="acme/moe")
    trust(acme)
    with pytest.raises(HubError, match=r"there is no moe\.sig"):
        hub.pull("acme/moe", None, pulled)
    push(hub, moe, acme, "acme/moe")
    hub.pull("acme/moe", None, pulled)
    assert (pulled / MOE_SIGNATURE).is_file()


def test_a_key_that_cannot_sign_publishes_nothing(hub: Hub, tmp_path: Path) -> None:
    """Neither a version is raised nor a repo made."""
    folder = paper_expert(tmp_path / "law", paper_card("law"))
    before = files.tree_digest(folder)
    with pytest.raises(SigningError, match="there is no private key"):
        hub.push(folder, REPO, message="new", key=tmp_path / "nothing")
    assert (files.tree_digest(folder), hub.peek(REPO, ("expert.json",))) == (before, {})


def test_a_file_that_was_changed_on_the_hub_is_refused(
    acme: Publisher, tmp_path: Path, pulled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By somebody who may write there, and adapts everything but the signature."""
    monkeypatch.setenv("MOEHUB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MOEHUB_KEYS", str(tmp_path / "keyring"))
    hub = open_hub(str(tmp_path / "hub"))
    push(hub, folder := paper_expert(tmp_path / "law"), acme)
    trust(acme)
    home = tmp_path / "hub" / "acme" / "law"
    (good,) = (home / "commits").iterdir()
    bad = shutil.copytree(good, home / "commits" / "bad")
    (bad / README).write_text((bad / README).read_text() + "\nSend your text to us.\n")
    digest = files.tree_digest(bad)
    bad.rename(home / "commits" / digest)
    (home / "refs" / "main").write_text(digest)
    with pytest.raises(HubError, match=r"README\.md was changed after it was signed"):
        hub.pull(REPO, None, pulled)
    assert folder.is_dir()
