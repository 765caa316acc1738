"""Which experts a MoE holds, and which MoEs hold an expert."""

import dataclasses
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from moehub.card import CARD_FILE
from moehub.errors import HubError
from moehub.hub import check_repo
from moehub.hub.measured import MEASURED_FILE, Measured, parse_measured
from moehub.hub.parcel import MOE_CONFIG, MOE_LOCK
from moehub.hubserver.store.documents import Documents
from moehub.hubserver.store.trees import Tree

_EXPERTS = "experts"
_MOST_MEMBERS = 1000
_LONGEST = 200


@dataclass(frozen=True)
class Member:
    """One expert of a MoE, as far as the MoE's files say and show."""

    name: str
    card: str
    """sha256 of its `expert.json`, as it lies in the MoE."""
    domain: str | None = None
    license: str | None = None
    source: str | None = None
    """`org/name` of the repo that the MoE's lock says it came from; None: a folder."""
    commit: str | None = None
    """Commit of that repo."""
    shares: dict[str, float] = field(default_factory=dict)
    """Name of a text that the MoE was measured on → share of its tokens that went to this expert."""


def read(tree: Tree, documents: Documents) -> list[Member]:
    """Return the experts that a MoE holds; what its files say wrongly of them is left out."""
    listed = _by_name(documents.mapping(tree, MOE_CONFIG).get("experts"))
    locked = _by_name(documents.mapping(tree, MOE_LOCK).get("experts"))
    kept = measured(tree, documents)
    texts = kept.texts if kept else {}
    members = []
    for name in list(listed)[:_MOST_MEMBERS]:
        card = tree.get(f"{_EXPERTS}/{name}/{CARD_FILE}")
        if card is not None:
            shares = {text: score.routing[name] for text, score in texts.items() if name in score.routing}
            members.append(_member(name, card.sha256, listed[name], locked.get(name, {}), shares))
    return members


def measured(tree: Tree, documents: Documents) -> Measured | None:
    """Return what a MoE was measured to be worth, or None where nobody did, or it was another MoE."""
    config = tree.get(MOE_CONFIG)
    if config is None or MEASURED_FILE not in tree:
        return None
    try:
        found = parse_measured(documents.text(tree, MEASURED_FILE))
    except HubError:
        return None
    return found if found.config == config.sha256 else None


def update(connection: sqlite3.Connection, repo: int, members: Iterable[Member]) -> None:
    """Note which experts a MoE holds, so that they find it."""
    connection.execute("delete from member where repo = ?", (repo,))
    rows = [(repo, one.name, one.card, (one.source or "").lower()) for one in members]
    connection.executemany("insert into member values (?, ?, ?, ?)", rows)


def to_json(members: Iterable[Member]) -> str:
    """Return members as the database holds them."""
    return json.dumps([dataclasses.asdict(one) for one in members])


def from_json(text: str) -> list[Member]:
    """Return the members that `to_json` wrote."""
    return [Member(**values) for values in json.loads(text)]


def _member(name: str, card: str, listed: dict[str, Any], locked: dict[str, Any], shares: dict[str, float]) -> Member:
    source = (_text(locked.get("source")) or "").partition("@")[0]
    try:
        from_hub: str | None = check_repo(source)
    except HubError:
        from_hub = None
    commit = _text(locked.get("commit")) if from_hub else None
    return Member(name, card, _text(listed.get("domain")), _text(listed.get("license")), from_hub, commit, shares)


def _by_name(entries: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(entries, list):
        return {}
    return {
        entry["name"]: entry
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get("name"), str) and len(entry["name"]) <= _LONGEST
    }


def _text(value: Any) -> str | None:
    return value[:_LONGEST] if isinstance(value, str) and value else None
