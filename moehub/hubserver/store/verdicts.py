"""What the admission gate said about an expert, by its files and the repo that publishes it (`Candidate.key`)."""

import json
from collections.abc import Mapping
from typing import Any

from moehub.hubserver.store.database import Database, now


class Verdicts:
    """Every verdict."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the verdict kept under a key (see `moehub.admission.verdict`), with when it was `checked`, or None."""
        row = (
            self.database.reading().execute("select verdict, checked from verdict where digest = ?", (key,)).fetchone()
        )
        return {**json.loads(row["verdict"]), "checked": row["checked"]} if row else None

    def put(self, key: str, verdict: Mapping[str, Any]) -> None:
        """Keep a verdict, as `moehub.admission.verdict.Verdict.to_dict` gives it."""
        with self.database.writing() as connection:
            connection.execute(
                "insert or replace into verdict values (?, ?, ?, ?)",
                (key, bool(verdict["admitted"]), json.dumps(dict(verdict)), now()),
            )
