"""Commits: each applied to the one before it, none lost, none made twice."""

import itertools

import pytest

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.store.trees import Tree
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver.pushes import push, upload


@pytest.fixture
def law(store: Store) -> Repo:
    return store.repos.create("acme/law", EVERYBODY)


def paths(store: Store, repo: Repo, revision: str = "main") -> list[str]:
    return sorted(store.history.tree(repo, store.repos.resolve(repo, revision)))


def test_commits_build_on_each_other(store: Store, law: Repo) -> None:
    """Files are added, replaced and deleted; every commit stays as it was."""
    first = push(store, law.id, {"a": b"1", "b/c": b"2", "b/d": b"3"})
    second = store.history.commit(
        law, "main", Change({"a": upload(store, law, "a", b"4")}, deleted_folders=("b/",)), title="two", author="ada"
    )
    third = push(store, law.id, {"e": b"5"}, deleted=("a",))
    assert [sorted(store.history.tree(law, oid)) for oid in (first, second, third)] == [
        ["a", "b/c", "b/d"],
        ["a"],
        ["e"],
    ]
    commits = list(store.history.before(law, third))
    assert [(commit.oid, commit.parent) for commit in commits] == [(third, second), (second, first), (first, None)]
    assert (commits[1].title, commits[1].author, len(commits[1].oid)) == ("two", "ada", 40)


def test_what_changes_nothing_makes_no_commit(store: Store, law: Repo) -> None:
    """The same files again, as a client sends them whose connection broke."""
    first = push(store, law.id, {"a": b"1"})
    assert push(store, law.id, {"a": b"1"}) == first
    assert push(store, law.id, {"a": b"1"}, parent=first) == first


def test_a_commit_names_the_one_before_it_or_is_refused(store: Store, law: Repo) -> None:
    """Whoever looked at an older state has to look again."""
    first = push(store, law.id, {"a": b"1"})
    push(store, law.id, {"b": b"2"}, parent=first)
    with pytest.raises(RefusedError, match=f"has moved to .* since {first[:12]}") as refused:
        push(store, law.id, {"c": b"3"}, parent=first)
    assert refused.value.status == 412
    assert paths(store, law) == ["a", "b"]


def test_a_commit_that_is_sent_again_is_the_one_that_was_made(store: Store, law: Repo) -> None:
    """Its answer got lost, so its parent is no longer the newest; another change from there is still refused."""
    first = push(store, law.id, {"a": b"1"})
    second = push(store, law.id, {"a": b"2"}, parent=first)
    assert push(store, law.id, {"a": b"2"}, parent=first) == second
    change = Change(deleted_files=("a",))
    third = store.history.commit(law, "main", change, title="", author="ada", parent=second)
    assert store.history.commit(law, "main", change, title="", author="ada", parent=second) == third
    with pytest.raises(RefusedError) as refused:
        store.history.commit(law, "main", Change(deleted_files=("b",)), title="", author="ada", parent=second)
    assert refused.value.status == 412


def test_equal_commits_in_two_repos_have_names_of_their_own(store: Store) -> None:
    """A client's cache keeps files by repo and commit; a name says nothing about another repo."""
    assert push(store, "acme/one", {"a": b"1"}) != push(store, "acme/two", {"a": b"1"})


def test_bytes_of_another_repo_cannot_be_committed(store: Store, law: Repo) -> None:
    """Knowing a private file's sha256 does not open it; nor does a false size."""
    private = store.repos.create("eve/private", EVERYBODY)
    entry = upload(store, private, "x.safetensors", b"secret")
    mine = upload(store, law, "x.safetensors", b"mine")
    for stolen in (entry, trees.large(mine.sha256, mine.size + 1)):
        with pytest.raises(RefusedError, match="were not uploaded to acme/law: send them") as refused:
            store.history.commit(law, "main", Change({"x.safetensors": stolen}), title="", author="ada")
        assert refused.value.status == 422
    assert store.repos.refs(law)[0].oid == ""


def test_what_is_not_there_cannot_be_deleted(store: Store, law: Repo) -> None:
    """Neither a file nor a folder; nothing else of the change happens."""
    push(store, law.id, {"a/b": b"1"})
    for change in (Change(deleted_files=("b",)), Change(deleted_folders=("c",)), Change(deleted_folders=("a/b",))):
        with pytest.raises(RefusedError) as refused:
            store.history.commit(law, "main", change, title="", author="ada")
        assert (refused.value.status, refused.value.code) == (404, "EntryNotFound")
    assert paths(store, law) == ["a/b"]


def test_names_that_cannot_stand_are_refused(store: Store, law: Repo) -> None:
    """Paths that lead elsewhere, pickles, and files that would be folders."""
    push(store, law.id, {"a": b"1"})
    for name in ("../x", "model.pkl", "a/b", "A"):
        with pytest.raises(RefusedError) as refused:
            push(store, law.id, {name: b"2"})
        assert refused.value.status == 400
    assert paths(store, law) == ["a"]


def test_the_gate_sees_the_whole_tree_and_can_refuse_it(store: Store, law: Repo) -> None:
    """Nothing is committed then."""
    push(store, law.id, {"a": b"1"})
    seen: list[list[str]] = []

    def admit(repo: Repo, tree: Tree) -> None:
        seen.append([repo.id, *tree])
        raise RefusedError(422, "no", "expert-refused")

    with pytest.raises(RefusedError, match="no"):
        store.history.commit(
            law, "main", Change({"b": upload(store, law, "b", b"2")}), title="", author="ada", admit=admit
        )
    assert seen == [["acme/law", "a", "b"]]
    assert paths(store, law) == ["a"]


def test_a_commit_that_came_in_between_is_built_upon(store: Store, law: Repo) -> None:
    """The gate looks again at what the commit really is."""
    push(store, law.id, {"a": b"1"})
    trees_seen = []
    others = iter([{"b": b"2"}])

    def admit(_repo: Repo, tree: Tree) -> None:
        trees_seen.append(sorted(tree))
        for files in itertools.islice(others, 1):
            push(store, law.id, files)

    entry = upload(store, law, "c", b"3")
    store.history.commit(law, "main", Change({"c": entry}), title="", author="ada", admit=admit)
    assert trees_seen == [["a", "c"], ["a", "b", "c"]]
    assert paths(store, law) == ["a", "b", "c"]


def test_only_main_decides_what_lists_say(store: Store, law: Repo) -> None:
    """A commit to a branch changes that branch alone."""
    first = push(store, law.id, {"README.md": b"---\nlicense: mit\n---"})
    store.repos.name(law, "exp", "branch", first)
    second = push(store, law.id, {"README.md": b"---\nlicense: gpl\n---"}, branch="exp")
    head = store.heads.get(law)
    assert head is not None
    assert (head.oid, head.license, store.repos.resolve(law, "exp")) == (first, "mit", second)


def test_half_a_character_does_not_stop_a_commit(store: Store, law: Repo) -> None:
    """JSON can name what UTF-8 cannot write."""
    entry = upload(store, law, "a", b"1")
    oid = store.history.commit(law, "main", Change({"a": entry}), title="x\ud800", message="\udfff", author="ada")
    commit = next(store.history.before(law, oid))
    assert (commit.title, commit.message) == ("x?", "?")


def test_unknown_branches_and_commits_are_named(store: Store, law: Repo) -> None:
    """With the code that the client knows; also after the repo was deleted."""
    with pytest.raises(RefusedError) as no_branch:
        store.history.commit(law, "exp", Change(), title="", author="ada")
    with pytest.raises(RefusedError) as no_commit:
        store.history.tree(law, "0" * 40)
    store.repos.delete(law)
    with pytest.raises(RefusedError) as no_repo:
        store.history.commit(law, "main", Change(), title="", author="ada")
    assert {refused.value.code for refused in (no_branch, no_commit, no_repo)} == {"RevisionNotFound"}
