"""Repos by name, who may see them, and their branches and tags."""

import dataclasses

import pytest

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.repos import Ref, Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERYBODY, STRANGER, Visitor
from tests.hubserver.pushes import push

ADA = Visitor("ada", frozenset({"acme"}), writes=True)
READER = Visitor("reader", frozenset({"acme"}))
EVE = Visitor("eve", frozenset({"eve"}), writes=True)
GUEST = Visitor("guest", grants=frozenset({"acme/law"}))


@pytest.fixture
def law(store: Store) -> Repo:
    return store.repos.create("acme/law", ADA)


def refusal(error: pytest.ExceptionInfo[RefusedError]) -> tuple[int, str | None]:
    return error.value.status, error.value.code


def test_a_new_repo_has_an_empty_main(store: Store, law: Repo) -> None:
    """Which names no commit yet."""
    assert store.repos.refs(law) == [Ref("main", "branch", "")]
    with pytest.raises(RefusedError) as refused:
        store.repos.resolve(law, "main")
    assert refusal(refused) == (404, "RevisionNotFound")


@pytest.mark.parametrize(
    "name", ["acme", "acme/law/x", "acme/..", "../acme/law", "acme/a b", "acme/x.git", "acme/a--b"]
)
def test_a_name_that_cannot_be_one_is_refused(store: Store, name: str) -> None:
    """Before anything is made."""
    with pytest.raises(RefusedError) as refused:
        store.repos.create(name, EVERYBODY)
    assert refusal(refused) == (400, None)


@pytest.mark.parametrize(("visitor", "status"), [(STRANGER, 401), (READER, 403), (EVE, 403)])
def test_only_who_writes_to_a_namespace_makes_and_changes_repos(
    store: Store, law: Repo, visitor: Visitor, status: int
) -> None:
    """A stranger is asked for a token, the others are told that theirs does not do."""
    for attempt in (
        lambda: store.repos.create("acme/new", visitor),
        lambda: store.repos.get(law.id, visitor, write=True),
    ):
        with pytest.raises(RefusedError) as refused:
            attempt()
        assert refusal(refused) == (status, None)


def test_names_that_differ_in_case_are_one(store: Store, law: Repo) -> None:
    """A file system may not tell them apart."""
    with pytest.raises(RefusedError, match="there is a repo acme/law already") as refused:
        store.repos.create("ACME/Law", ADA)
    assert refusal(refused) == (409, None)
    assert store.repos.get("Acme/LAW", STRANGER) == law


@pytest.mark.parametrize(
    ("visitor", "sees"), [(ADA, 1), (READER, 1), (EVE, 0), (STRANGER, 0), (GUEST, 0), (EVERYBODY, 1)]
)
def test_a_private_repo_is_not_there_for_others(store: Store, law: Repo, visitor: Visitor, sees: bool) -> None:
    """It looks exactly like one that does not exist."""
    store.repos.set(law, private=True)
    if sees:
        assert store.repos.get(law.id, visitor) == dataclasses.replace(law, private=True)
        return
    answers = []
    for name in (law.id, "acme/none"):
        with pytest.raises(RefusedError) as refused:
            store.repos.get(name, visitor)
        answers.append((refusal(refused), str(refused.value).replace(name, "?")))
    assert answers[0] == answers[1]
    assert answers[0][0] == (404, "RepoNotFound")


@pytest.mark.parametrize(("visitor", "reads"), [(ADA, 1), (READER, 1), (EVE, 0), (STRANGER, 0), (GUEST, 1)])
def test_a_gated_repo_is_read_by_who_is_admitted(store: Store, law: Repo, visitor: Visitor, reads: bool) -> None:
    """The others see it, and not its files."""
    store.repos.set(law, gated="manual")
    assert store.repos.get(law.id, visitor).gated == "manual"
    if reads:
        store.repos.get(law.id, visitor, content=True)
    else:
        with pytest.raises(RefusedError) as refused:
            store.repos.get(law.id, visitor, content=True)
        assert refusal(refused) == (403, "GatedRepo")


def test_settings_are_changed_one_by_one(store: Store, law: Repo) -> None:
    """What is not named stays."""
    store.repos.set(law, private=True, gated="auto")
    store.repos.set(law, private=False)
    assert store.repos.get(law.id, ADA) == dataclasses.replace(law, gated="auto")
    store.repos.set(law, gated=False)
    assert store.repos.get(law.id, ADA) == law
    with pytest.raises(RefusedError, match="expected auto, manual or false"):
        store.repos.set(law, gated="perhaps")


def test_a_deleted_repo_takes_everything_with_it(store: Store, law: Repo) -> None:
    """Also from lists; and its number is never given to another one."""
    push(store, "acme/law", {"README.md": b"---\ntags: [x]\n---"})
    store.repos.delete(law)
    rows = [row[0] for row in store.database.reading().execute("select name from sqlite_master where type = 'table'")]
    owned = {"repo", "history", "ref", "link", "head", "tag"}
    assert owned <= set(rows)
    counts = {name: store.database.reading().execute(f"select count(*) from {name}").fetchone()[0] for name in owned}  # noqa: S608 (names of ours)
    assert counts == dict.fromkeys(owned, 0)
    assert store.repos.create("acme/law", ADA).number > law.number


def test_commits_get_names_and_lose_them(store: Store, law: Repo) -> None:
    """By branch, tag, full reference and commit; also with a slash."""
    oid = push(store, law.id, {"README.md": b"one"})
    store.repos.name(law, "exp/1", "branch", oid)
    store.repos.name(law, "v1.0", "tag", oid)
    for name in ("main", "exp/1", "refs/heads/exp/1", "v1.0", "refs/tags/v1.0", oid):
        assert store.repos.resolve(law, name) == oid
    store.repos.unname(law, "exp/1", "branch")
    with pytest.raises(RefusedError) as refused:
        store.repos.unname(law, "v1.0", "branch")
    assert refusal(refused) == (404, "RevisionNotFound")
    assert store.repos.refs(law) == [Ref("main", "branch", oid), Ref("v1.0", "tag", oid)]


@pytest.mark.parametrize("name", ["", "a b", "-x", "x/", "/x", "a//b", "a..b", "a" * 300, "0" * 40, "é", "x\n"])
def test_a_ref_that_cannot_be_one_is_refused(store: Store, law: Repo, name: str) -> None:
    """Also one that looks like a commit."""
    oid = push(store, law.id, {"README.md": b"one"})
    with pytest.raises(RefusedError) as refused:
        store.repos.name(law, name, "tag", oid)
    assert refusal(refused) == (400, None)


def test_a_name_is_given_once_and_to_a_commit_of_the_repo(store: Store, law: Repo) -> None:
    """A branch and a tag of one name would be one too many; so would a commit of another repo."""
    oid = push(store, law.id, {"README.md": b"one"})
    elsewhere = push(store, "acme/other", {"README.md": b"another"})
    store.repos.name(law, "v1", "tag", oid)
    with pytest.raises(RefusedError) as taken:
        store.repos.name(law, "v1", "branch", oid)
    assert refusal(taken) == (409, None)
    for kind, commit in (("tag", elsewhere), ("branch", elsewhere), ("tag", "")):
        with pytest.raises(RefusedError) as unknown:
            store.repos.name(law, "v2", kind, commit)
        assert refusal(unknown) == (404, "RevisionNotFound")


def test_main_cannot_be_deleted(store: Store, law: Repo) -> None:
    """Every repo has one."""
    with pytest.raises(RefusedError) as refused:
        store.repos.unname(law, "main", "branch")
    assert refusal(refused) == (403, None)


def test_a_repo_that_was_deleted_meanwhile_is_not_there(store: Store, law: Repo) -> None:
    """Whoever still holds it is told so, not that the name is taken."""
    store.repos.delete(law)
    with pytest.raises(RefusedError) as refused:
        store.repos.name(law, "new", "branch", "")
    assert refusal(refused) == (404, "RepoNotFound")
