"""Fifty writers of one name at once: one winner for each commit, and nobody's work lost."""

import collections
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import fsck
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import EVERYBODY
from tests.hubserver.committing import committing
from tests.hubserver.pushes import push, repo_of

WRITERS = 50


def together(number: int) -> threading.Barrier:
    return threading.Barrier(number, timeout=60)


def test_everybodys_commit_lands(store: Store) -> None:
    """Each is built on the one before; nobody has to ask again."""
    repo, start = repo_of(store, "acme/law"), together(WRITERS)

    def write(number: int) -> str:
        start.wait()
        return push(store, repo.id, {f"{number}.txt": b"%d" % number})

    with ThreadPoolExecutor(WRITERS) as pool:
        commits = list(pool.map(write, range(WRITERS)))
    newest = store.repos.resolve(repo, "main")
    assert sorted(store.history.tree(repo, newest)) == sorted(f"{number}.txt" for number in range(WRITERS))
    assert sorted(commit.oid for commit in store.history.before(repo, newest)) == sorted(commits)
    assert fsck.check(store, deep=True).faults == []


def test_of_those_who_name_a_parent_one_wins(store: Store) -> None:
    """The others are told that it moved, and nothing of theirs is committed."""
    parent, start = push(store, "acme/law", {"a": b"0"}), together(WRITERS)

    def write(number: int) -> int:
        start.wait()
        try:
            push(store, "acme/law", {"a": b"mine: %d" % number}, parent=parent)
        except RefusedError as error:
            return error.status
        return 0

    with ThreadPoolExecutor(WRITERS) as pool:
        outcomes = collections.Counter(pool.map(write, range(WRITERS)))
    assert outcomes == {0: 1, 412: WRITERS - 1}
    repo = repo_of(store, "acme/law")
    assert len(list(store.history.before(repo, store.repos.resolve(repo, "main")))) == 2


def test_the_same_files_are_one_commit(store: Store) -> None:
    """Whoever brings what is there already is told which commit that is."""
    repo_of(store, "acme/law")
    start = together(WRITERS)

    def write(_: int) -> str:
        start.wait()
        return push(store, "acme/law", {"README.md": b"the same", "x.safetensors": b"bytes"})

    with ThreadPoolExecutor(WRITERS) as pool:
        assert len(set(pool.map(write, range(WRITERS)))) == 1
    assert fsck.check(store).commits == 1


def test_one_of_many_makes_a_repo(store: Store) -> None:
    """The others are told that there is one, also in another case."""
    start = together(WRITERS)

    def make(number: int) -> int:
        start.wait()
        try:
            store.repos.create("acme/law" if number % 2 else "ACME/law", EVERYBODY)
        except RefusedError as error:
            return error.status
        return 0

    with ThreadPoolExecutor(WRITERS) as pool:
        assert collections.Counter(pool.map(make, range(WRITERS))) == {0: 1, 409: WRITERS - 1}


@pytest.mark.parametrize("repos", [("acme/law",) * 4, ("acme/law", "acme/code", "eve/law", "eve/code")])
def test_processes_write_beside_each_other(store: Store, repos: tuple[str, ...]) -> None:
    """To one repo or to many: every commit that somebody was told of is there."""
    with committing(store.root, *repos) as made:
        pushed = [push(store, "acme/law", {"mine": b"%d" % number}) for number in range(10)]
    report = fsck.check(store, deep=True)
    assert (report.faults, report.commits) == ([], sum(made) + len(pushed))
    repo = repo_of(store, "acme/law")
    chain = {commit.oid for commit in store.history.before(repo, store.repos.resolve(repo, "main"))}
    assert set(pushed) <= chain
