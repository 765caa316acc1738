"""What the admission gate said about an expert, by the digest of its files: nothing is checked twice."""

import json
from collections.abc import Mapping
from typing import Any

from moehub.hubserver.store.database import Database, now


class Verdicts:
    """Every verdict."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, digest: str) -> dict[str, Any] | None:
        """Return the verdict on files with this `moehub.files.digest_of` (see `moehub.admission.verdict`), or None."""
        row = (
            self.database.reading()
            .execute("select verdict, checked from verdict where digest = ?", (digest,))
            .fetchone()
        )
        return {**json.loads(row["verdict"]), "checked": row["checked"]} if row else None

    def put(self, digest: str, verdict: Mapping[str, Any]) -> None:
        """Keep a verdict, as `moehub.admission.verdict.Verdict.to_dict` gives it."""
        with self.database.writing() as connection:
            connection.execute(
                "insert or replace into verdict values (?, ?, ?, ?)",
                (digest, bool(verdict["admitted"]), json.dumps(dict(verdict)), now()),
            )
