"""Commits, and the one way to make one."""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from moehub.hubserver.refusals import RefusedError, no_entry, no_revision
from moehub.hubserver.store import trees
from moehub.hubserver.store.database import Database, now
from moehub.hubserver.store.heads import Heads, Saying
from moehub.hubserver.store.repos import MAIN, Repo
from moehub.hubserver.store.trees import Entry, Tree

Admit = Callable[[Repo, Tree], None]
"""Looks at what a commit would hold, and raises a RefusedError where it may not."""


@dataclass(frozen=True)
class Commit:
    """One commit."""

    oid: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str


@dataclass(frozen=True)
class Change:
    """What a commit does to the tree before it."""

    files: Mapping[str, Entry] = field(default_factory=dict)
    """Files that are added or replaced; their blobs were uploaded to the repo."""
    deleted_files: tuple[str, ...] = ()
    deleted_folders: tuple[str, ...] = ()

    def apply(self, before: Tree, repo: str) -> dict[str, Entry]:
        """Return the tree after the change.

        Raises:
            RefusedError: a file to delete is not there.
        """
        after = dict(before)
        for path in self.deleted_files:
            if path not in after:
                raise no_entry(repo, path)
            del after[path]
        for folder in self.deleted_folders:
            inside = [path for path in after if path.startswith(folder.rstrip("/") + "/")]
            if not inside:
                raise no_entry(repo, folder)
            for path in inside:
                del after[path]
        return after | dict(self.files)


class History:
    """The commits of every repo."""

    def __init__(self, database: Database, heads: Heads, *, pickles: bool = False) -> None:
        """Keep the parts; `pickles` says whether files may be pickles by their names."""
        self.database, self.heads, self.pickles = database, heads, pickles

    def commit(
        self,
        repo: Repo,
        branch: str,
        change: Change,
        *,
        title: str,
        message: str = "",
        author: str,
        parent: str | None = None,
        admit: Admit = lambda _repo, _tree: None,
    ) -> str:
        """Make a commit and return its name; where nothing changes it is the one that is there.

        Of several at once each is applied to the one before it, unless it names its `parent`.

        Raises:
            RefusedError: 412 if `parent` is not the newest, 404 for an unknown branch or file, 400 for files that
                cannot stand together, 422 for a blob that was not uploaded to this repo, or whatever `admit` raises.
        """
        for path in change.files:
            trees.check_path(path, pickles=self.pickles)
        while True:
            head = self._head(repo, branch)
            if parent and parent != head:
                if head and self._repeats(repo, head, parent, change):
                    return head
                raise RefusedError(
                    412, f"{repo.id} has moved to {head[:12] or 'nothing'} since {parent[:12]}: look again, and retry"
                )
            before = self.tree(repo, head) if head else {}
            try:
                after = change.apply(before, repo.id)
            except RefusedError:
                if head and self._repeats(repo, head, self._parent(repo, head), change):
                    return head  # what is to be deleted is gone because it was deleted
                raise
            if head and after == before:
                return head
            trees.check_tree(after)
            admit(repo, after)
            saying = self.heads.read(repo, after) if branch == MAIN else None
            commit = Commit("", head or None, _text(title), _text(message), author, now())
            made = self._add(repo, branch, commit, change, after, saying)
            if made is not None:
                return made

    def _parent(self, repo: Repo, oid: str) -> str | None:
        return next(self.before(repo, oid)).parent

    def _repeats(self, repo: Repo, head: str, parent: str | None, change: Change) -> bool:
        """Return whether a commit was made by this very change: a client asks again if the answer got lost."""
        if self._parent(repo, head) != parent:
            return False
        try:
            return change.apply(self.tree(repo, parent) if parent else {}, repo.id) == self.tree(repo, head)
        except RefusedError:
            return False

    def _add(
        self, repo: Repo, branch: str, commit: Commit, change: Change, tree: Tree, saying: Saying | None
    ) -> str | None:
        """Write a commit, or return None if another one was made meanwhile."""
        text, head = trees.to_json(tree), commit.parent or ""
        identity = [repo.number, head, text, commit.title, commit.message, commit.author, commit.date]
        salted = json.dumps([*identity, secrets.token_hex(8)])
        oid = hashlib.sha1(salted.encode(), usedforsecurity=False).hexdigest()
        with self.database.writing() as connection:
            if self._head(repo, branch) != head:
                return None
            for path, entry in change.files.items():
                linked = connection.execute(
                    "select size from link join blob using (sha256) where repo = ? and sha256 = ?",
                    (repo.number, entry.sha256),
                ).fetchone()
                if linked is None or linked["size"] != entry.size:
                    raise RefusedError(
                        422, f"the bytes of {path!r} ({entry.sha256[:12]}) were not uploaded to {repo.id}: send them"
                    )
            digest = trees.digest(text)
            connection.execute("insert or ignore into tree values (?, ?)", (digest, text))
            connection.execute(
                "insert into history values (?, ?, ?, ?, ?, ?, ?, ?)",
                (repo.number, oid, commit.parent, digest, commit.title, commit.message, commit.author, commit.date),
            )
            connection.execute("update ref set oid = ? where repo = ? and name = ?", (oid, repo.number, branch))
            if saying is not None:
                self.heads.update(connection, repo, oid, commit.date, saying)
        return oid

    def _head(self, repo: Repo, branch: str) -> str:
        row = (
            self.database.reading()
            .execute("select oid from ref where repo = ? and name = ? and kind = 'branch'", (repo.number, branch))
            .fetchone()
        )
        if row is None:
            raise no_revision(repo.id, branch)
        return str(row["oid"])

    def tree(self, repo: Repo, oid: str) -> dict[str, Entry]:
        """Return what a commit holds.

        Raises:
            RefusedError: there is no such commit.
        """
        row = (
            self.database.reading()
            .execute(
                "select entries from history join tree on digest = tree where repo = ? and oid = ?", (repo.number, oid)
            )
            .fetchone()
        )
        if row is None:
            raise no_revision(repo.id, oid)
        return trees.from_json(row["entries"])

    def before(self, repo: Repo, oid: str) -> Iterator[Commit]:
        """Yield a commit and those before it, newest first."""
        step: str | None = oid
        while step:
            row = (
                self.database.reading()
                .execute(
                    "select oid, parent, title, message, author, date from history where repo = ? and oid = ?",
                    (repo.number, step),
                )
                .fetchone()
            )
            if row is None:
                return
            yield Commit(*row)
            step = row["parent"]


def _text(text: str) -> str:
    """Return text as UTF-8 can hold it: JSON can name halves of characters."""
    return text.encode(errors="replace").decode()
