"""Bytes that become blobs, and which repo may commit which blob.

A repo may commit only blobs that were uploaded to it: otherwise whoever knows the sha256 of a private file could commit
it to a repo of their own, and read it there. So bytes are taken in even where the hub holds them already: having them
is the proof.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.blobs import Blob, Blobs, Incoming
from moehub.hubserver.store.database import Database, now


class Uploads:
    """What was uploaded, and to which repo."""

    def __init__(self, database: Database, blobs: Blobs, quota: int | None) -> None:
        """Keep the parts; `quota` is how many bytes a namespace may hold, None for no limit."""
        self.database, self.blobs, self.quota = database, blobs, quota

    def take(self, incoming: Incoming, repo: int, expected: Blob | None = None) -> Blob:
        """Make a blob of finished bytes that the repo may commit.

        Raises:
            RefusedError: they are not the bytes that were announced, or the namespace's quota is used up.
        """
        blob = incoming.finish()
        if expected is not None and blob != expected:
            raise RefusedError(
                422,
                f"the upload holds {blob.size} bytes with sha256 {blob.sha256[:12]}, announced were {expected.size} "
                f"with {expected.sha256[:12]}: send the file again",
            )
        self._keep({blob: incoming.path}, repo)
        return blob

    def take_bytes(self, content: bytes, repo: int) -> Blob:
        """Make a blob of bytes in memory that the repo may commit.

        Raises:
            RefusedError: the namespace's quota is used up.
        """
        return self.take_all([content], repo)[0]

    def take_all(self, contents: Sequence[bytes], repo: int) -> list[Blob]:
        """Make blobs of the bytes of several files in memory: all of them, or none.

        Raises:
            RefusedError: the namespace's quota is used up.
        """
        with contextlib.ExitStack() as stack:
            finished = []
            for content in contents:
                incoming = stack.enter_context(self.blobs.receiving())
                incoming.write(content)
                finished.append((incoming.finish(), incoming.path))
            self._keep(dict(finished), repo)
        return [blob for blob, _ in finished]

    def _keep(self, finished: Mapping[Blob, Path], repo: int) -> None:
        """Make blobs of finished bytes, which lie where they came in."""
        with self.database.writing() as connection:
            if connection.execute("select 1 from repo where id = ?", (repo,)).fetchone() is None:
                raise RefusedError(404, "the repo was deleted during the upload: make it again", "RepoNotFound")
            missing = {}
            for blob, path in finished.items():
                if not self._linked(repo, blob):
                    self.require_room(repo, blob.size)
                known = connection.execute("select 1 from blob where sha256 = ?", (blob.sha256,)).fetchone()
                if known is None or not self.blobs.intact(blob):
                    missing[blob] = path
                connection.execute("insert or ignore into blob values (?, ?)", (blob.sha256, blob.size))
                connection.execute(
                    "insert into link values (?, ?, ?) on conflict do update set since = excluded.since",
                    (repo, blob.sha256, now()),
                )
            self.blobs.keep_all(missing)

    def touch(self, repo: int, blob: Blob) -> bool:
        """Begin the time anew in which the repo may commit a blob; return False where it may not."""
        with self.database.writing() as connection:
            if not self.holds(repo, blob.sha256, blob.size):
                return False
            connection.execute(
                "update link set since = ? where repo = ? and sha256 = ?",
                (now(), repo, blob.sha256),
            )
        return True

    def holds(self, repo: int, sha256: str, size: int | None = None) -> bool:
        """Return whether the repo may commit this blob (of this size, where one is given), and its bytes are there."""
        found = self.size(repo, sha256)
        return found is not None and size in (None, found)

    def size(self, repo: int, sha256: str) -> int | None:
        """Return how many bytes a blob has that the repo may commit; None where it may not, or they are not there."""
        row = (
            self.database.reading()
            .execute("select size from link join blob using (sha256) where repo = ? and sha256 = ?", (repo, sha256))
            .fetchone()
        )
        # Where the disk lost the bytes they are asked for again, which brings them back.
        return int(row["size"]) if row is not None and self.blobs.intact(Blob(sha256, row["size"])) else None

    def _linked(self, repo: int, blob: Blob) -> bool:
        found = self.database.reading().execute("select 1 from link where repo = ? and sha256 = ?", (repo, blob.sha256))
        return found.fetchone() is not None

    def used(self, repo: int) -> int:
        """Return how many bytes the namespace of a repo holds, in whatever case its repos write it."""
        total = self.database.reading().execute(
            "select sum(size) from repo mine join repo theirs "
            "on theirs.folded >= lower(mine.namespace) || '/' and theirs.folded < lower(mine.namespace) || '0' "
            "join link on link.repo = theirs.id join blob using (sha256) where mine.id = ?",  # 0 follows /
            (repo,),
        )
        return total.fetchone()[0] or 0

    def require_room(self, repo: int, size: int) -> None:
        """Refuse bytes beyond the namespace's quota.

        Raises:
            RefusedError: they are.
        """
        if self.quota is not None and (used := self.used(repo)) + size > self.quota:
            raise RefusedError(
                507,
                f"{size} bytes more than the {used} that are used would exceed the namespace's quota of {self.quota} "
                "bytes: delete repos that nobody needs, or ask whoever runs the hub for more",
            )
