"""Tokens: shown once, kept as digests, and worth what they were made for."""

import datetime as dt
import sqlite3

import pytest

from moehub.errors import HubError
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.store import Store
from moehub.hubserver.visitor import Visitor


def test_a_token_says_who_sends_it(store: Store) -> None:
    """And what they may do; names of namespaces and repos in any case."""
    token, secret = store.tokens.create("ada", ["Acme", "ada"], writes=True, grants=["Other/Law"])
    assert secret.startswith("moehub_")
    assert len(secret) == 50
    assert store.tokens.visitor(secret) == Visitor("ada", frozenset({"acme", "ada"}), True, frozenset({"other/law"}))
    assert [each.id for each in store.tokens.list()] == [token.id]


def test_the_token_itself_is_kept_nowhere(store: Store) -> None:
    """Whoever reads the database, or a backup, cannot use it."""
    _, secret = store.tokens.create("ada", ["acme"])
    store.database.reading().execute("pragma wal_checkpoint(truncate)")
    for path in store.root.rglob("*"):
        assert not path.is_file() or secret.removeprefix("moehub_").encode() not in path.read_bytes()


@pytest.mark.parametrize("secret", ["", "moehub_", "moehub_x", "\ud800"])
def test_other_tokens_are_nobodys(store: Store, secret: str) -> None:
    """Whatever they hold."""
    store.tokens.create("ada", ["acme"])
    assert store.tokens.visitor(secret) is None


def test_an_expired_token_is_nobodys(store: Store) -> None:
    """From its last moment on."""
    token, secret = store.tokens.create("ada", ["acme"], lifetime=dt.timedelta(hours=1))
    assert store.tokens.visitor(secret) is not None
    assert not token.expired
    with store.database.writing() as connection:
        connection.execute("update token set expires = '2020-01-01T00:00:00.000Z'")
    assert store.tokens.visitor(secret) is None
    assert [each.expired for each in store.tokens.list()] == [True]


def test_a_revoked_token_is_nobodys_at_once(store: Store) -> None:
    """The others stay."""
    (first, one), (_, two) = (store.tokens.create(name, [name]) for name in ("ada", "bob"))
    assert store.tokens.revoke(first.id) == first
    assert store.tokens.visitor(one) is None
    assert store.tokens.visitor(two) is not None
    with pytest.raises(HubError, match=f"there is no token '{first.id}': `moehub hub token list`"):
        store.tokens.revoke(first.id)


def test_its_use_is_noted_seldom(store: Store) -> None:
    """Every ten minutes at most: reading is not writing."""
    _, secret = store.tokens.create("ada", ["acme"])
    assert store.tokens.list()[0].used is None
    store.tokens.visitor(secret)
    first = store.tokens.list()[0].used
    store.tokens.visitor(secret)
    assert store.tokens.list()[0].used == first
    with store.database.writing() as connection:
        connection.execute("update token set used = '2020'")
    store.tokens.visitor(secret)
    assert str(store.tokens.list()[0].used) > "2021"


def test_who_somebody_is_does_not_depend_on_writing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub whose disk is full, or busy, still knows them."""
    _, secret = store.tokens.create("ada", ["acme"])

    def refuse() -> sqlite3.Connection:
        raise RefusedError(507, "full")

    monkeypatch.setattr(store.database, "writing", refuse)
    assert store.tokens.visitor(secret) is not None


@pytest.mark.parametrize("name", ["", "a b", "a/b", "..", "a..b", "é", "x" * 200])
def test_a_name_that_cannot_be_one_is_refused(store: Store, name: str) -> None:
    """Of a person, and of a namespace."""
    for arguments in ((name, ["acme"]), ("ada", [name])):
        with pytest.raises(HubError, match="cannot be a name or a namespace"):
            store.tokens.create(*arguments)
    assert store.tokens.list() == []


def test_a_grant_names_a_repo(store: Store) -> None:
    """Not a namespace."""
    with pytest.raises(HubError, match="'acme' cannot name a repo"):
        store.tokens.create("ada", [], grants=["acme"])
