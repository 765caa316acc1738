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
from moehub.config import YAML_FAULTS
from moehub.hub import model_card
from moehub.hub.parcel import MOE_CONFIG, MOE_LOCK
from moehub.hubserver.candidates import candidates
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import members
from moehub.hubserver.store.blobs import Blobs
from moehub.hubserver.store.database import Database
from moehub.hubserver.store.documents import Documents, plain
from moehub.hubserver.store.members import Member
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.tags import domain_in, first, tags_of
from moehub.hubserver.store.trees import Tree
from moehub.hubserver.visitor import EVERY_NAMESPACE, Visitor

MOST_FRONT = 1 << 16
"""Characters of front matter that are looked at: reading YAML takes seconds per megabyte."""


_LONGEST = 200
"""Characters of what is shown in lists."""


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
    size: int
    """Bytes of all files."""
    manifest: str | None
    """sha256 of an expert's `expert.json`."""
    members_json: str
    admitted: bool | None
    """Whether the gate admitted every expert in it; None where there is none."""

    @cached_property
    def members(self) -> list[Member]:
        """The experts that a MoE holds."""
        return members.from_json(self.members_json)

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
    size: int
    manifest: str | None
    candidates_json: str
    members_json: str


class Heads:
    """The newest of every repo."""

    def __init__(self, database: Database, blobs: Blobs) -> None:
        self.database, self.documents = database, Documents(blobs)

    def read(self, repo: Repo, tree: Tree) -> Saying:
        """Return what files say about themselves; blobs are read, so not within a transaction."""
        card = self._front_matter(tree)
        base = first(card.get("base_model")) or self._adapters_base(tree)
        tags = tags_of(card, tree, base)
        summary = model_card.read_summary(card.get("moehub"))
        domain = summary.domain if summary else domain_in(tags)
        licence = summary.license if summary else first(card.get("license"))
        words = " ".join([repo.id, *tags, domain or "", base or "", licence or ""]).lower()
        kind, manifest = kind_of(tree), tree.get(CARD_FILE)
        return Saying(
            kind,
            base,
            domain[:_LONGEST] if domain else None,
            licence[:_LONGEST] if licence else None,
            words,
            json.dumps(card),
            json.dumps(tags),
            sum(entry.size for entry in tree.values()),
            manifest.sha256 if manifest else None,
            json.dumps([each.key for each in candidates(repo.id, tree)]),
            members.to_json(members.read(tree, self.documents) if kind == "moe" else ()),
        )

    def update(self, connection: sqlite3.Connection, repo: Repo, oid: str, date: str, saying: Saying) -> None:
        """Note what a new commit of `main` says, within the transaction that makes it."""
        connection.execute(
            f"insert or replace into head values (?, ?, ?{', ?' * len(dataclasses.fields(saying))})",  # noqa: S608 (ours)
            (repo.number, oid, date, *dataclasses.astuple(saying)),
        )
        connection.execute("delete from tag where repo = ?", (repo.number,))
        tags = json.loads(saying.tags_json)
        connection.executemany("insert into tag values (?, ?)", [(tag, repo.number) for tag in tags])
        members.update(connection, repo.number, members.from_json(saying.members_json))

    def get(self, repo: Repo) -> Head | None:
        """Return what is known about a repo, or None before its first commit."""
        row = self.database.reading().execute(f"{SELECT} where repo.id = ?", (repo.number,)).fetchone()
        return head_of(row) if row else None

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
        where, values = conditions(question, visitor)
        if after is not None:
            modified, _, number = after.partition("~")
            where.append("(head.modified, head.repo) < (?, ?)")
            if not (number.isascii() and number.isdecimal() and len(number) < 19):
                raise RefusedError(400, f"{after!r:.80} is no place in a list: begin at its first page")
            values += [modified, int(number)]
        filters = f" where {' and '.join(where)}" if where else ""
        order = " order by head.modified desc, head.repo desc limit ?"
        rows = self.database.reading().execute(f"{SELECT}{filters}{order}", (*values, limit))
        return [head_of(row) for row in rows]

    def count(self, question: Question, visitor: Visitor) -> int:
        """Return how many repos `find` would return in all."""
        return sum(self.tally(question, visitor).values())

    def tally(self, question: Question, visitor: Visitor) -> dict[str, int]:
        """Return how many repos of each kind `find` would return in all; kinds without any are left out."""
        where, values = conditions(question, visitor)
        filters = f" where {' and '.join(where)}" if where else ""
        rows = self.database.reading().execute(
            f"select kind, count(*) from head{filters} group by kind",  # noqa: S608 (all of it is ours)
            values,
        )
        return dict(map(tuple, rows))

    def bases(self, question: Question, visitor: Visitor, *, limit: int) -> list[tuple[str, int]]:
        """Return the bases of the repos that `find` would return, those of the most first, and how many have each."""
        where, values = conditions(question, visitor)
        filters = " and ".join(["base is not null", *where])
        rows = self.database.reading().execute(
            "select base, count(*) from head indexed by head_by_base "  # noqa: S608 (all of it is ours)
            f"where {filters} group by base order by 2 desc, 1 limit ?",
            (*values, limit),
        )
        return list(map(tuple, rows))

    def _front_matter(self, tree: Tree) -> dict[str, Any]:
        return front_matter(self.documents.text(tree, README))

    def _adapters_base(self, tree: Tree) -> str | None:
        """Return what PEFT says the base is: its own pushes have no model card that does."""
        return first(self.documents.mapping(tree, ADAPTER_CONFIG).get("base_model_name_or_path"))


def kind_of(tree: Mapping[str, Any]) -> str:
    """Return what a repo with these files is: `expert`, `moe` or `other`."""
    if CARD_FILE in tree:
        return "expert"
    return "moe" if MOE_CONFIG in tree and MOE_LOCK in tree else "other"


def front_matter(readme: str) -> dict[str, Any]:
    """Return the YAML at the beginning of a README.md; empty where there is none, or none that can be read."""
    found = model_card.FRONT_MATTER.match(readme)
    if not found or len(found[1]) > MOST_FRONT:
        return {}
    try:
        values = plain(yaml.load(found[1], _Loader))  # noqa: S506 (a SafeLoader)
    except YAML_FAULTS:
        return {}
    return values if isinstance(values, dict) else {}


class _Loader(yaml.SafeLoader):
    """YAML without aliases, of which a few lines can stand for gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def conditions(question: Question, visitor: Visitor) -> tuple[list[str], list[Any]]:
    """Return SQL conditions on `head`, and their values, for what the visitor may see of what they ask."""
    where: list[str] = []
    values: list[Any] = []
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
        where.append("head.repo in (select id from repo where folded >= ? and folded < ?)")
        values += [f"{question.author.lower()}/", f"{question.author.lower()}0"]  # 0 follows /
    if EVERY_NAMESPACE not in visitor.namespaces:
        mine = sorted(visitor.namespaces)
        others = f"lower(namespace) not in ({', '.join('?' * len(mine))})"
        where.append(f"head.repo not in (select id from repo where private and {others})")  # noqa: S608 (all of it is ours)
        values += mine
    return where, values


SELECT = (
    "select repo.namespace, repo.name, repo.private, repo.gated, repo.id, repo.created, head.oid, head.modified, "
    "head.kind, head.base, head.domain, head.license, head.card, head.tags, head.size, head.manifest, head.members, "
    "(select min(coalesce(admitted, 0)) from json_each(head.candidates) left join verdict on digest = value) "
    "from head join repo on repo.id = head.repo"
)
"""Reads heads, as `head_of` takes them."""


def head_of(row: Sequence[Any]) -> Head:
    """Return the head in a row of `SELECT`."""
    namespace, name, private, gated, number, created, *said = row
    said[-1] = None if said[-1] is None else bool(said[-1])
    return Head(Repo(namespace, name, bool(private), gated, number, created), *said)
