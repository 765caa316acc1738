"""What the newest commit of `main` says about itself, kept beside it for lists and search."""

import dataclasses
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from moehub.card import ADAPTER_CONFIG, CARD_FILE, README
from moehub.hub import model_card
from moehub.hub.parcel import MOE_CONFIG, MOE_LOCK
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.blobs import Blobs
from moehub.hubserver.store.database import Database
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Tree
from moehub.hubserver.visitor import EVERY_NAMESPACE, Visitor

_MOST_TEXT = 1 << 20
"""Bytes of a README.md or an adapter_config.json that are looked at; one that is larger says nothing."""
_MOST_FRONT = 1 << 16
"""Characters of front matter that are looked at: reading YAML takes seconds per megabyte."""


@dataclass(frozen=True)
class Head:
    """What a list shows of a repo."""

    repo: Repo
    oid: str
    modified: str
    kind: str
    """`expert`, `moe` or `other`."""
    base: str | None
    domain: str | None
    license: str | None
    card_json: str
    tags_json: str

    @cached_property
    def card(self) -> dict[str, Any]:
        """The front matter of its README.md; a stranger's text."""
        return json.loads(self.card_json)

    @cached_property
    def tags(self) -> list[str]:
        """The tags that the client filters by."""
        return json.loads(self.tags_json)

    @cached_property
    def summary(self) -> model_card.Summary | None:
        """What moehub's own part of the front matter says about an expert, or None where there is none."""
        return model_card.read_summary(self.card.get("moehub"))

    @property
    def place(self) -> str:
        """Where this repo stands in a list: what `Heads.find` takes as `after`."""
        return f"{self.modified}~{self.repo.number}"


@dataclass(frozen=True)
class Question:
    """Which repos somebody looks for; what is None or empty does not matter."""

    search: str = ""
    """Words that must all occur in name, tags, domain, base or licence; in any case."""
    tags: tuple[str, ...] = ()
    """Tags that a repo must all have."""
    author: str | None = None
    kind: str | None = None
    base: str | None = None


@dataclass(frozen=True)
class Saying:
    """What the files of a commit say about themselves."""

    kind: str
    base: str | None
    domain: str | None
    license: str | None
    words: str
    """What search looks through."""
    card_json: str
    tags_json: str


class Heads:
    """The newest of every repo."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self.database, self.blobs = database, blobs

    def read(self, repo: Repo, tree: Tree) -> Saying:
        """Return what files say about themselves; blobs are read, so not within a transaction."""
        card = self._front_matter(tree)
        base = _first(card.get("base_model")) or self._adapters_base(tree)
        tags = _tags(card, tree, base)
        summary = model_card.read_summary(card.get("moehub"))
        domain = summary.domain if summary else _domain(tags)
        licence = summary.license if summary else _first(card.get("license"))
        words = " ".join([repo.id, *tags, domain or "", base or "", licence or ""]).lower()
        return Saying(kind_of(tree), base, domain, licence, words, json.dumps(card), json.dumps(tags))

    def update(self, connection: sqlite3.Connection, repo: Repo, oid: str, date: str, saying: Saying) -> None:
        """Note what a new commit of `main` says, within the transaction that makes it."""
        connection.execute(
            "insert or replace into head values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (repo.number, oid, date, *dataclasses.astuple(saying)),
        )
        connection.execute("delete from tag where repo = ?", (repo.number,))
        tags = json.loads(saying.tags_json)
        connection.executemany("insert into tag values (?, ?)", [(tag, repo.number) for tag in tags])

    def get(self, repo: Repo) -> Head | None:
        """Return what is known about a repo, or None before its first commit."""
        row = self.database.reading().execute(f"{_SELECT} where repo.id = ?", (repo.number,)).fetchone()
        return _head(row) if row else None

    def find(self, question: Question, visitor: Visitor, *, limit: int, after: str | None = None) -> list[Head]:
        """Return repos that the visitor may see, newest first.

        Args:
            question: which.
            visitor: who asks.
            limit: how many at most.
            after: the `place` of the last one of the page before.

        Raises:
            RefusedError: `after` is no place.
        """
        where, values = _conditions(question, visitor)
        if after is not None:
            modified, _, number = after.partition("~")
            where.append("(head.modified, head.repo) < (?, ?)")
            if not number.isdecimal():
                raise RefusedError(400, f"{after!r:.80} is no place in a list: begin at its first page")
            values += [modified, int(number)]
        conditions = f" where {' and '.join(where)}" if where else ""
        order = " order by head.modified desc, head.repo desc limit ?"
        rows = self.database.reading().execute(f"{_SELECT}{conditions}{order}", (*values, limit))
        return [_head(row) for row in rows]

    def count(self, question: Question, visitor: Visitor) -> int:
        """Return how many repos `find` would return in all."""
        where, values = _conditions(question, visitor)
        conditions = f" where {' and '.join(where)}" if where else ""
        rows = self.database.reading().execute(
            f"select count(*) from head join repo on repo.id = head.repo{conditions}",  # noqa: S608 (all of it is ours)
            values,
        )
        return int(rows.fetchone()[0])

    def _front_matter(self, tree: Tree) -> dict[str, Any]:
        return front_matter(self._text(tree, README))

    def _adapters_base(self, tree: Tree) -> str | None:
        """Return what PEFT says the base is: its own pushes have no model card that does."""
        try:
            values = _plain(json.loads(self._text(tree, ADAPTER_CONFIG)))
        except (ValueError, RecursionError):
            return None
        return _first(values.get("base_model_name_or_path")) if isinstance(values, dict) else None

    def _text(self, tree: Tree, path: str) -> str:
        entry = tree.get(path)
        if entry is None or entry.size > _MOST_TEXT:
            return ""
        try:
            return self.blobs.path(entry.sha256).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # lost by the disk: `moehub hub fsck` says so
            return ""


def kind_of(tree: Mapping[str, Any]) -> str:
    """Return what a repo with these files is: `expert`, `moe` or `other`."""
    if CARD_FILE in tree:
        return "expert"
    return "moe" if MOE_CONFIG in tree and MOE_LOCK in tree else "other"


def front_matter(readme: str) -> dict[str, Any]:
    """Return the YAML at the beginning of a README.md; empty where there is none, or none that can be read."""
    found = model_card.FRONT_MATTER.match(readme)
    if not found or len(found[1]) > _MOST_FRONT:
        return {}
    try:
        values = _plain(yaml.load(found[1], _Loader))  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return {}
    return values if isinstance(values, dict) else {}


class _Loader(yaml.SafeLoader):
    """YAML without aliases, of which a few lines can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _plain(values: Any) -> Any:
    """Return values as JSON can hold them, and text as UTF-8 can: dates as text, numbers that are none as null.

    Raises:
        ValueError: they cannot be.
        TypeError: the same.
    """
    text = json.dumps(values, default=str, ensure_ascii=False)
    text.encode()
    return json.loads(text, parse_constant=lambda _: None)


def _tags(card: Mapping[str, Any], tree: Tree, base: str | None) -> list[str]:
    """Return the tags that the Hugging Face client expects a hub to derive."""
    library = _first(card.get("library_name")) or (
        "peft" if ADAPTER_CONFIG in tree else "transformers" if MOE_CONFIG in tree else None
    )
    relation = _first(card.get("base_model_relation")) or ("adapter" if ADAPTER_CONFIG in tree else "finetune")
    found = [library, "safetensors" if any(path.endswith(".safetensors") for path in tree) else None]
    found += [*_all(card.get("tags")), *_all(card.get("language"))]
    found += [f"dataset:{each}" for each in _all(card.get("datasets"))]
    for each in _all(card.get("base_model")) or _all(base):
        found += [f"base_model:{each}", f"base_model:{relation}:{each}"]
    found += [f"license:{each}" for each in _all(card.get("license"))[:1]]
    found.append(_first(card.get("pipeline_tag")))
    return list(dict.fromkeys(tag for tag in found if tag))


def _domain(tags: Sequence[str]) -> str | None:
    return next((tag.removeprefix("domain:") for tag in tags if tag.startswith("domain:")), None)


def _all(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(each)[:200] for each in values[:200] if isinstance(each, str | int | float) and str(each)]


def _first(value: Any) -> str | None:
    return next(iter(_all(value)), None)


def _conditions(question: Question, visitor: Visitor) -> tuple[list[str], list[Any]]:
    where, values = [], []
    for tag in question.tags:
        where.append("exists (select 1 from tag where tag.tag = ? and tag.repo = head.repo)")
        values.append(tag)
    for word in question.search.lower().split():
        where.append("instr(head.words, ?)")
        values.append(word)
    for column, value in (("head.kind", question.kind), ("head.base", question.base)):
        if value is not None:
            where.append(f"{column} = ?")
            values.append(value)
    if question.author is not None:
        where.append("repo.folded >= ? and repo.folded < ?")
        values += [f"{question.author.lower()}/", f"{question.author.lower()}0"]  # 0 follows /
    if EVERY_NAMESPACE not in visitor.namespaces:
        mine = sorted(visitor.namespaces)
        where.append(f"(not repo.private or lower(repo.namespace) in ({', '.join('?' * len(mine))}))")
        values += mine
    return where, values


_SELECT = (
    "select repo.namespace, repo.name, repo.private, repo.gated, repo.id, repo.created, head.oid, head.modified, "
    "head.kind, head.base, head.domain, head.license, head.card, head.tags from head join repo on repo.id = head.repo"
)


def _head(row: Sequence[Any]) -> Head:
    namespace, name, private, gated, number, created, *rest = row
    return Head(Repo(namespace, name, bool(private), gated, number, created), *rest)
