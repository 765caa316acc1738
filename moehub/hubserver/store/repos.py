"""Repos by name, who may see them, and their branches and tags."""

import re
import sqlite3
from dataclasses import dataclass

from moehub.errors import HubError
from moehub.hub import check_repo
from moehub.hubserver.refusals import RefusedError, gated, no_repo, no_revision
from moehub.hubserver.store.database import Database, now
from moehub.hubserver.visitor import EVERYBODY, Visible, Visitor

MAIN = "main"
_REF = re.compile(r"[\w](?:[\w./-]{0,198}[\w-])?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repo(Visible):
    """A repo."""

    number: int
    """What the database calls it."""
    created: str


@dataclass(frozen=True)
class Ref:
    """A branch or a tag."""

    name: str
    kind: str
    """`branch` or `tag`."""
    oid: str
    """The commit it names; empty for a branch without commits."""


class Repos:
    """Every repo of the hub."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(self, repo: str, visitor: Visitor, *, private: bool = False) -> Repo:
        """Make a repo with an empty `main` and return it.

        Raises:
            RefusedError: 400 for a name that cannot be one, 401 or 403 without the right to, 409 where there is one
                (by a name that may differ in case).
        """
        try:
            namespace, name = check_repo(repo).split("/")
        except HubError as error:
            raise RefusedError(400, str(error)) from error
        require_write(visitor, namespace, repo)
        with self.database.writing() as connection:
            try:
                number = connection.execute(
                    "insert into repo (namespace, name, folded, private, created) values (?, ?, ?, ?, ?)",
                    (namespace, name, repo.lower(), private, now()),
                ).lastrowid
            except sqlite3.IntegrityError as error:
                taken = connection.execute(
                    "select namespace || '/' || name from repo where folded = ?", (repo.lower(),)
                ).fetchone()[0]
                raise RefusedError(409, f"there is a repo {taken} already: choose another name") from error
            connection.execute("insert into ref values (?, ?, 'branch', '')", (number, MAIN))
        return self.get(repo, visitor)

    def get(self, repo: str, visitor: Visitor, *, write: bool = False, content: bool = False) -> Repo:
        """Return the repo `namespace/name`.

        Args:
            repo: its name, in whatever case.
            visitor: who asks.
            write: whether they want to change it.
            content: whether they want to read its files.

        Raises:
            RefusedError: there is none that they may see, or they may not do that with it.
        """
        row = self.database.reading().execute("select * from repo where folded = ?", (repo.lower(),)).fetchone()
        found = row and Repo(
            row["namespace"], row["name"], bool(row["private"]), row["gated"], row["id"], row["created"]
        )
        if not found or not visitor.may_see(found):
            raise no_repo(repo)
        if write:
            require_write(visitor, found.namespace, found.id)
        if content and not visitor.may_read(found):
            raise gated(found.id)
        return found

    def numbered(self, repo: str, number: int) -> Repo:
        """Return the repo `namespace/name` of which an address that the hub signed speaks.

        Raises:
            RefusedError: it was deleted, and perhaps made again.
        """
        found = self.get(repo, EVERYBODY)  # who was given the address was allowed to do what it is for
        if found.number != number:
            raise no_repo(repo)
        return found

    def delete(self, repo: Repo) -> None:
        """Delete a repo with its history; its blobs are left to the next collection."""
        with self.database.writing() as connection:
            connection.execute("delete from repo where id = ?", (repo.number,))

    def set(self, repo: Repo, *, private: bool | None = None, gated: str | bool | None = None) -> None:
        """Change who may see (`private`) and read (`gated`: `auto`, `manual` or False) a repo; None leaves it."""
        if gated not in (None, False, "auto", "manual"):
            raise RefusedError(400, f"gated is {gated!r}, expected auto, manual or false")
        with self.database.writing() as connection:
            if private is not None:
                connection.execute("update repo set private = ? where id = ?", (private, repo.number))
            if gated is not None:
                connection.execute("update repo set gated = ? where id = ?", (gated or None, repo.number))

    def refs(self, repo: Repo) -> list[Ref]:
        """Return the branches and tags of a repo by name."""
        rows = self.database.reading().execute(
            "select name, kind, oid from ref where repo = ? order by name", (repo.number,)
        )
        return [Ref(*row) for row in rows]

    def resolve(self, repo: Repo, revision: str) -> str:
        """Return the commit that a branch, a tag, `refs/heads/…`, `refs/tags/…` or a commit names.

        Raises:
            RefusedError: there is none; also for a branch without commits.
        """
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        connection = self.database.reading()
        row = connection.execute("select oid from ref where repo = ? and name = ?", (repo.number, name)).fetchone()
        if row is None and _COMMIT.fullmatch(revision):
            row = connection.execute(
                "select oid from history where repo = ? and oid = ?", (repo.number, revision)
            ).fetchone()
        if row is None or not row["oid"]:
            raise no_revision(repo.id, revision)
        return str(row["oid"])

    def name(self, repo: Repo, ref: str, kind: str, commit: str) -> None:
        """Give a commit a branch or a tag.

        Raises:
            RefusedError: 400 for a name that cannot be one, 404 for a commit that the repo does not have, 409 where the
                name is taken.
        """
        parts = ref.split("/")
        if not _REF.fullmatch(ref) or _COMMIT.fullmatch(ref) or ".." in ref or any(not part for part in parts):
            raise RefusedError(400, f"{ref!r} cannot be a {kind}: expected letters, digits, '.', '_', '-' and '/'")
        with self.database.writing() as connection:
            if commit or kind != "branch":
                _require_commit(connection, repo, commit)
            try:
                connection.execute("insert into ref values (?, ?, ?, ?)", (repo.number, ref, kind, commit))
            except sqlite3.IntegrityError as error:
                if connection.execute("select 1 from repo where id = ?", (repo.number,)).fetchone() is None:
                    raise no_repo(repo.id) from error
                raise RefusedError(
                    409, f"{repo.id} has a branch or tag {ref!r} already: choose another name"
                ) from error

    def unname(self, repo: Repo, ref: str, kind: str) -> None:
        """Take a branch or a tag away; its commits stay.

        Raises:
            RefusedError: 403 for `main`, 404 where there is none.
        """
        if ref == MAIN:
            raise RefusedError(403, f"{MAIN} cannot be deleted: delete the repo instead")
        with self.database.writing() as connection:
            gone = connection.execute(
                "delete from ref where repo = ? and name = ? and kind = ?", (repo.number, ref, kind)
            )
            if not gone.rowcount:
                raise no_revision(repo.id, ref)


def _require_commit(connection: sqlite3.Connection, repo: Repo, commit: str) -> None:
    found = connection.execute("select 1 from history where repo = ? and oid = ?", (repo.number, commit))
    if found.fetchone() is None:
        raise no_revision(repo.id, commit)


def require_write(visitor: Visitor, namespace: str, repo: str) -> None:
    """Refuse somebody who may not change repos of a namespace.

    Raises:
        RefusedError: 401 for a stranger, 403 for somebody known.
    """
    if visitor.may_write(namespace):
        return
    if not visitor.known:
        raise RefusedError(401, f"changing {repo} takes a token: have one made with `moehub hub token create`")
    raise RefusedError(403, f"the token of {visitor.name} may not write to {namespace}: use one that may")
