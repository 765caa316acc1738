"""The history of a repo: its commits, and what one of them changed."""

from dataclasses import dataclass
from itertools import islice

from starlette.responses import Response

from moehub.hubserver.pages.ask import Ask
from moehub.hubserver.pages.page import page
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Entry, Tree

_AT_ONCE = 50
_MOST_CHANGES = 1000


@dataclass(frozen=True)
class Changed:
    """One file that a commit changed."""

    path: str
    before: Entry | None
    """None: the commit added it."""
    after: Entry | None
    """None: the commit deleted it."""


def commits(ask: Ask, repo: Repo, revision: str) -> Response:
    """Return the commits of a revision, newest first.

    Raises:
        RefusedError: there is no such revision.
    """
    oid = ask.store.repos.resolve(repo, revision)
    found = list(islice(ask.store.history.before(repo, oid), _AT_ONCE + 1))
    return page(
        ask,
        "commits.j2",
        repo=repo,
        tab="history",
        revision=revision,
        commits=found[:_AT_ONCE],
        earlier=found[_AT_ONCE].oid if len(found) > _AT_ONCE else None,
        refs=ask.store.repos.refs(repo),
    )


def commit(ask: Ask, repo: Repo, revision: str) -> Response:
    """Return what a commit changed.

    Raises:
        RefusedError: there is no such commit.
    """
    oid = ask.store.repos.resolve(repo, revision)
    found = next(ask.store.history.before(repo, oid))
    before = ask.store.history.tree(repo, found.parent) if found.parent else {}
    changes = _changes(before, ask.store.history.tree(repo, oid))
    shown, left = changes[:_MOST_CHANGES], max(0, len(changes) - _MOST_CHANGES)
    return page(ask, "commit.j2", repo=repo, tab="history", commit=found, changes=shown, left=left)


def _changes(before: Tree, after: Tree) -> list[Changed]:
    return [
        Changed(name, before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
