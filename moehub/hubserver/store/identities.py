"""Which commits hold which base, by the digests that experts name: each was read once."""

from dataclasses import dataclass

from moehub.hubserver.store.database import Database
from moehub.hubserver.store.repos import Repo


@dataclass(frozen=True)
class Identity:
    """What identifies a base."""

    digest: str
    """`moehub.base.weights_digest`; empty: it is no base."""
    tokenizer: str
    """`moehub.base.tokenizer_digest`."""


class Identities:
    """Every base that was identified, and every commit that turned out to hold none."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, repo: Repo, oid: str, files: str) -> Identity | None:
        """Return what a commit holds, or None where neither it nor its files (by their digest) were identified yet."""
        row = (
            self.database.reading()
            .execute(
                "select digest, tokenizer from base where (repo = ? and oid = ?) or files = ? limit 1",
                (repo.number, oid, files),
            )
            .fetchone()
        )
        return Identity(*row) if row else None

    def put(self, repo: Repo, oid: str, files: str, identity: Identity) -> None:
        """Keep what a commit holds."""
        with self.database.writing() as connection:
            connection.execute(
                "insert or replace into base select id, ?, ?, ?, ? from repo where id = ?",
                (oid, files, identity.digest, identity.tokenizer, repo.number),
            )

    def holding(self, digest: str, reference: str) -> list[tuple[Repo, str]]:
        """Return the repos and commits that hold a base: the one called `reference` first, then the oldest."""
        rows = self.database.reading().execute(
            f"{_SELECT}, base.oid from repo join base on base.repo = repo.id where base.digest = ? "
            "order by repo.folded <> ?, repo.id",
            (digest, reference.lower()),
        )
        return [_found(row) for row in rows]

    def unread(self, reference: str) -> list[tuple[Repo, str]]:
        """Return the repos whose newest commit nobody looked at: the one called `reference` first, then the newest."""
        rows = self.database.reading().execute(_UNREAD, (reference.lower(),))
        return [_found(row) for row in rows]


_SELECT = "select repo.namespace, repo.name, repo.private, repo.gated, repo.id, repo.created"
_UNREAD = (
    f"{_SELECT}, head.oid from repo join head on head.repo = repo.id where head.kind = 'other' "  # noqa: S608 (all ours)
    "and not exists (select 1 from base where base.repo = repo.id and base.oid = head.oid) "
    "order by repo.folded <> ?, head.modified desc"
)


def _found(row: tuple[object, ...]) -> tuple[Repo, str]:
    namespace, name, private, gated, number, created, oid = row
    return Repo(str(namespace), str(name), bool(private), gated, number, str(created)), str(oid)  # type: ignore[arg-type]
