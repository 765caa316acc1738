import threading
from pathlib import Path

import pytest

from moehub import files
from moehub.card import BasePin
from moehub.errors import HubError
from moehub.hub import Listing, parcel
from moehub.hub.folder import FolderHub
from tests.published import PIN, paper_card, paper_expert, paper_moe


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    return FolderHub(tmp_path / "hub")


@pytest.fixture
def law(tmp_path: Path) -> Path:
    return paper_expert(tmp_path / "law")


def test_what_is_pushed_is_pulled(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """File by file, with the model card that the push wrote."""
    published = hub.push(law, "acme/law", message="first")
    commit = hub.pull("acme/law", None, tmp_path / "got")
    assert commit == published.commit == files.tree_digest(tmp_path / "got")
    assert {path.name for path in (tmp_path / "got").iterdir()} == {*(path.name for path in law.iterdir()), "README.md"}
    assert published.url.endswith(f"/hub/acme/law/commits/{commit}")


def test_a_moe_makes_the_journey_too(hub: FolderHub, tmp_path: Path) -> None:
    """With its folders."""
    moe = paper_moe(tmp_path / "moe")
    commit = hub.push(moe, "acme/moe", message="first").commit
    hub.pull("acme/moe", commit, tmp_path / "got")
    assert files.tree_digest(tmp_path / "got") == files.tree_digest(moe)


def test_the_same_content_is_the_same_commit(hub: FolderHub, law: Path) -> None:
    """A second push of the same files makes nothing new."""
    first = hub.push(law, "acme/law", message="first")
    assert hub.push(law, "acme/law", message="second") == first
    home = hub.root / "acme" / "law"
    assert [path.name for path in (home / "commits").iterdir()] == [first.commit]
    assert (home / "messages" / first.commit).read_text() == "first\n"


def test_an_old_commit_can_be_pulled_by_name_and_by_tag(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """`main` moves on; commits and tags stay."""
    old = hub.push(law, "acme/law", message="old").commit
    assert hub.tag("acme/law", "v1.0") == old
    paper_expert(law, weights=b"better weights")
    new = hub.push(law, "acme/law", message="new").commit
    assert [hub.pull("acme/law", revision, tmp_path / "got") for revision in (None, "main", "v1.0", old)] == [
        new,
        new,
        old,
        old,
    ]
    assert (tmp_path / "got" / "adapter_model.safetensors").read_bytes() == b"weights"


def test_a_tag_never_moves(hub: FolderHub, law: Path) -> None:
    """A name that somebody relies on keeps its meaning; saying it twice is no harm."""
    hub.push(law, "acme/law", message="old")
    hub.tag("acme/law", "v1.0")
    hub.tag("acme/law", "v1.0")
    paper_expert(law, weights=b"better weights")
    hub.push(law, "acme/law", message="new")
    with pytest.raises(HubError, match="taken by another commit"):
        hub.tag("acme/law", "v1.0")


@pytest.mark.parametrize("name", ["main", "", "../x", "a/b", "0" * 64])
def test_names_that_mean_something_else_are_no_tags(hub: FolderHub, law: Path, name: str) -> None:
    """A tag is a file name that is neither `main` nor a commit."""
    hub.push(law, "acme/law", message="first")
    with pytest.raises(HubError, match="cannot be a tag"):
        hub.tag("acme/law", name)


def test_the_experts_are_listed_and_moes_are_not(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """In the order of their repos, with what their cards say; `base` keeps those of one base."""
    other = BasePin("acme/other", "f" * 64, "e" * 64)
    code = paper_expert(tmp_path / "code", paper_card("code", base=other, metrics=None))
    commit = hub.push(law, "acme/law", message="x").commit
    hub.push(code, "acme/code", message="x")
    hub.push(paper_moe(tmp_path / "moe"), "acme/moe", message="x")
    expected = Listing("acme/law", "law", "law", PIN, "apache-2.0", commit, paper_card().metrics)
    assert [listing.repo for listing in hub.experts()] == ["acme/code", "acme/law"]
    assert hub.experts("acme/base") == [expected]


def test_a_flipped_byte_is_found_and_leaves_no_folder(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """A commit is named after its content, so any change shows."""
    commit = hub.push(law, "acme/law", message="first").commit
    path = hub.root / "acme" / "law" / "commits" / commit / "README.md"
    path.write_bytes(b"+" + path.read_bytes()[1:])
    with pytest.raises(HubError, match=r"was changed after publication: ask its publisher"):
        hub.pull("acme/law", None, tmp_path / "got")
    assert [path.name for path in tmp_path.iterdir() if "got" in path.name] == []


def test_a_damaged_commit_is_healed_by_pushing_again(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """As the refusal says."""
    commit = hub.push(law, "acme/law", message="first").commit
    (hub.root / "acme" / "law" / "commits" / commit / "expert.json").unlink()
    assert hub.push(law, "acme/law", message="again").commit == commit
    assert hub.pull("acme/law", None, tmp_path / "got") == commit


def test_a_link_in_a_hub_is_not_followed(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """A stranger's hub cannot make a pull read this machine's files."""
    commit = hub.push(law, "acme/law", message="first").commit
    (tmp_path / "secret").write_text("secret")
    path = hub.root / "acme" / "law" / "commits" / commit / "README.md"
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(HubError, match=r"'README\.md', which no publisher sent"):
        hub.pull("acme/law", None, tmp_path / "got")


def test_a_file_that_nobody_may_publish_is_not_fetched(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """Whatever somebody put into a commit's folder."""
    commit = hub.push(law, "acme/law", message="first").commit
    (hub.root / "acme" / "law" / "commits" / commit / "run.py").write_text("x")
    with pytest.raises(HubError, match=r"'run\.py', which no publisher sent"):
        hub.pull("acme/law", None, tmp_path / "got")


def test_a_refused_pull_leaves_what_stood_there(hub: FolderHub, law: Path) -> None:
    """An expert from before is still whole after a failure."""
    before = files.tree_digest(law)
    commit = hub.push(law, "acme/law", message="first").commit
    (hub.root / "acme" / "law" / "commits" / commit / "expert.json").write_text("{}")
    with pytest.raises(HubError):
        hub.pull("acme/law", None, law)
    assert files.tree_digest(law) == before


def test_missing_repos_revisions_and_hubs_are_named_with_the_cure(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """Each in one sentence."""
    with pytest.raises(HubError, match=r"is no folder hub \(it has no hub.json\): give --hub"):
        hub.pull("acme/law", None, tmp_path / "got")
    with pytest.raises(HubError, match="is no folder hub"):
        hub.experts()
    hub.push(law, "acme/law", message="first")
    with pytest.raises(HubError, match=r"there is no repo acme/code in .*: `moehub list"):
        hub.pull("acme/code", None, tmp_path / "got")
    with pytest.raises(HubError, match="has no revision 'v9', expected one of main, or a commit"):
        hub.pull("acme/law", "v9", tmp_path / "got")


@pytest.mark.parametrize("revision", ["../../../../etc/passwd", "..", "../main", "f" * 64])
def test_a_revision_leads_nowhere_else(hub: FolderHub, law: Path, tmp_path: Path, revision: str) -> None:
    """Revisions come from people and recipes; they are names, not paths."""
    hub.push(law, "acme/law", message="first")
    with pytest.raises(HubError, match="has no revision"):
        hub.pull("acme/law", revision, tmp_path / "got")


def test_a_ref_that_leads_elsewhere_is_refused(hub: FolderHub, law: Path, tmp_path: Path) -> None:
    """Whoever can write a ref cannot point it out of the repo."""
    hub.push(law, "acme/law", message="first")
    (hub.root / "acme" / "law" / "refs" / "main").write_text("../../../../law")
    with pytest.raises(HubError, match="has no revision 'main'"):
        hub.pull("acme/law", None, tmp_path / "got")
    assert hub.experts() == []


def test_a_folder_with_other_things_in_it_does_not_become_a_hub(law: Path, tmp_path: Path) -> None:
    """A mistyped --hub does not fill somebody's home with repos."""
    before = files.tree_digest(tmp_path)
    with pytest.raises(HubError, match="is no folder hub"):
        FolderHub(tmp_path).push(law, "acme/law", message="first")
    with pytest.raises(HubError, match="is a file, expected a folder"):
        FolderHub(law / "expert.json").push(law, "acme/law", message="first")
    assert files.tree_digest(tmp_path) == before


@pytest.mark.parametrize("text", ["{", '{"kind": "moehub folder hub", "format": 2}'])
def test_a_hub_of_another_format_is_refused(hub: FolderHub, law: Path, text: str) -> None:
    """Rather than misread."""
    hub.push(law, "acme/law", message="first")
    (hub.root / "hub.json").write_text(text)
    with pytest.raises(HubError, match=r"is damaged|update moehub"):
        hub.push(law, "acme/law", message="second")


def test_a_folder_has_no_private_repos(hub: FolderHub, law: Path) -> None:
    """Somebody who asked for privacy is told before anything is written."""
    with pytest.raises(HubError, match="cannot keep acme/law private"):
        hub.push(law, "acme/law", message="first", private=True)
    assert not hub.root.exists()


def test_a_file_that_changes_while_it_is_pushed_is_not_published(
    hub: FolderHub, law: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that still writes does not end up in a commit under the wrong name."""
    before = parcel.pack(law)
    monkeypatch.setattr(parcel, "pack", lambda _: before)
    monkeypatch.setattr(parcel.Parcel, "digests", lambda _: {"expert.json": "0" * 64})
    with pytest.raises(HubError, match="changed while it was being pushed"):
        hub.push(law, "acme/law", message="first")
    assert not list((hub.root / "acme" / "law" / "commits").iterdir())
    assert not (hub.root / "acme" / "law" / "refs").exists()


def test_many_can_push_at_once(hub: FolderHub, tmp_path: Path) -> None:
    """Every commit survives, equal ones become one, `main` is one of them, and the repo is whole."""
    folders = [paper_expert(tmp_path / str(i) / "law", weights=b"%d" % (i // 2)) for i in range(12)]
    commits: list[str] = []
    ready = threading.Barrier(len(folders))

    def push(folder: Path) -> None:
        ready.wait()
        commits.append(hub.push(folder, "acme/law", message="at once").commit)

    threads = [threading.Thread(target=push, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    home = hub.root / "acme" / "law"
    assert len(commits) == len(folders)
    assert sorted(path.name for path in (home / "commits").iterdir()) == sorted(set(commits))
    assert [path.name for path in (home / "refs").iterdir()] == ["main"]
    assert all(files.tree_digest(home / "commits" / commit) == commit for commit in commits)
    assert hub.pull("acme/law", None, tmp_path / "got") in commits


def test_checking_says_what_the_hub_holds(hub: FolderHub, law: Path) -> None:
    """And a folder wants no token."""
    hub.push(law, "acme/law", message="first")
    assert hub.check(1.0) == f"{hub.location} holds 1 experts"
    assert hub.token_cure() is None
