"""Tokens: who may do what. The hub keeps their sha256 alone; a token is shown once, when it is made."""

import contextlib
import datetime as dt
import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from moehub.errors import HubError
from moehub.hub import check_repo
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.database import Database, now, written
from moehub.hubserver.visitor import EVERY_NAMESPACE, Visitor

_PREFIX = "moehub_"
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")
_SELDOM = dt.timedelta(minutes=10)
"""How old the note of a token's last use may become, so that reading writes seldom."""


@dataclass(frozen=True)
class Token:
    """What the hub keeps of a token."""

    id: str
    """What `moehub hub token revoke` takes; says nothing about the token itself."""
    name: str
    """Whose it is: the author of their commits."""
    writes: bool
    namespaces: tuple[str, ...]
    """Namespaces that it may read, and write if it writes; `*`: every one."""
    grants: tuple[str, ...]
    """Gated repos of others that it may read."""
    created: str
    expires: str | None
    used: str | None
    """When it was last used, to about ten minutes."""

    @property
    def expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= now()


class Tokens:
    """Every token of the hub."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(
        self,
        name: str,
        namespaces: Sequence[str],
        *,
        writes: bool = False,
        lifetime: dt.timedelta | None = None,
        grants: Sequence[str] = (),
    ) -> tuple[Token, str]:
        """Make a token; return what is kept of it, and the token itself, which is kept nowhere.

        Raises:
            HubError: a name, a namespace or a repo cannot be one.
        """
        for each in (name, *(one for one in namespaces if one != EVERY_NAMESPACE)):
            if not _NAME.fullmatch(each) or ".." in each or "--" in each:
                raise HubError(f"{each!r} cannot be a name or a namespace, expected letters, digits, '.', '_' and '-'")
        secret = _PREFIX + secrets.token_urlsafe(32)
        made = dt.datetime.now(dt.UTC)
        token = Token(
            secrets.token_hex(4),
            name,
            writes,
            tuple(sorted({each.lower() for each in namespaces})),
            tuple(sorted({check_repo(each).lower() for each in grants})),
            written(made),
            written(made + lifetime) if lifetime is not None else None,
            None,
        )
        with self.database.writing() as connection:
            connection.execute(
                "insert into token values (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    token.id,
                    _digest(secret),
                    token.name,
                    token.writes,
                    json.dumps(token.namespaces),
                    json.dumps(token.grants),
                    token.created,
                    token.expires,
                    None,
                ),
            )
        return token, secret

    def list(self) -> "list[Token]":
        """Return every token, oldest first."""
        rows = self.database.reading().execute(f"{_SELECT} order by created, id")
        return [_token(row) for row in rows]

    def revoke(self, id_: str) -> Token:
        """Make a token worthless at once, and return what it was.

        Raises:
            HubError: there is no such token.
        """
        with self.database.writing() as connection:
            row = connection.execute(f"{_SELECT} where id = ?", (id_,)).fetchone()
            if row is None:
                raise HubError(f"there is no token {id_!r}: `moehub hub token list` shows their ids")
            connection.execute("delete from token where id = ?", (id_,))
        return _token(row)

    def visitor(self, secret: str) -> Visitor | None:
        """Return whose token this is, or None where it is nobody's or its time is over."""
        return self._used(self._valid("digest", _digest(secret)))

    def id_of(self, secret: str) -> str | None:
        """Return the id of this token, or None where it is nobody's or its time is over."""
        token = self._valid("digest", _digest(secret))
        return token.id if token else None

    def visitor_of(self, id_: str) -> Visitor | None:
        """Return whose token has this id, or None where it was revoked or its time is over."""
        return self._used(self._valid("id", id_))

    def _valid(self, column: str, value: str) -> Token | None:
        row = self.database.reading().execute(f"{_SELECT} where {column} = ?", (value,)).fetchone()
        token = _token(row) if row else None
        return token if token and not token.expired else None

    def _used(self, token: Token | None) -> Visitor | None:
        if token is None:
            return None
        if token.used is None or token.used < written(dt.datetime.now(dt.UTC) - _SELDOM):
            # Who they are does not depend on it: a hub whose disk is full still answers them.
            with contextlib.suppress(RefusedError), self.database.writing() as connection:
                connection.execute("update token set used = ? where id = ?", (now(), token.id))
        return Visitor(token.name, frozenset(token.namespaces), token.writes, frozenset(token.grants))


_SELECT = "select id, name, writes, namespaces, grants, created, expires, used from token"


def _token(row: Sequence[object]) -> Token:
    id_, name, writes, namespaces, grants, *times = row
    return Token(
        str(id_),
        str(name),
        bool(writes),
        tuple(json.loads(str(namespaces))),
        tuple(json.loads(str(grants))),
        *times,  # type: ignore[arg-type]
    )


def _digest(secret: str) -> str:
    # The token is 256 random bits: nothing slower than sha256 is needed to keep it from being guessed.
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()
