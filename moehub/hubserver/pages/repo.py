"""The page of one repo: an expert, a MoE, or anything else."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from markupsafe import Markup
from starlette.responses import Response

from moehub.card import CARD_FILE, README, Card, parse_card
from moehub.errors import HubError, MoehubError
from moehub.hub import check_repo
from moehub.hub.parcel import MOE_CONFIG, MOE_LOCK
from moehub.hubserver.pages import figures, markdown, shares
from moehub.hubserver.pages.ask import Ask
from moehub.hubserver.pages.checked import checked, signed
from moehub.hubserver.pages.page import page, path
from moehub.hubserver.store import kin
from moehub.hubserver.store.heads import Head
from moehub.hubserver.store.members import measured
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Entry

_MOST_COMMITS = 6
_MOST_HOLDERS = 20
_MOST_FACTS = 60


@dataclass(frozen=True)
class Shown:
    """The newest commit of a repo, and what it says about itself."""

    repo: Repo
    head: Head
    tree: Mapping[str, Entry]


def show(ask: Ask, repo: Repo) -> Response:
    """Return the page of a repo that the visitor may read."""
    head = ask.store.heads.get(repo)
    if head is None:
        return page(ask, "empty.j2", repo=repo, tab="card")
    shown = Shown(repo, head, ask.store.history.tree(repo, head.oid))
    own = {"expert": _expert, "moe": _moe}.get(head.kind, _other)(ask, shown)
    return page(
        ask,
        f"{head.kind}.j2",
        repo=repo,
        tab="card",
        head=head,
        tree=shown.tree,
        oid=head.oid,
        readme=_readme(ask, shown),
        commits=list(islice(ask.store.history.before(repo, head.oid), _MOST_COMMITS)),
        refs=ask.store.repos.refs(repo),
        checked=checked(ask, repo, shown.tree),
        signed=signed(shown.tree),
        base_argument=_base_argument(head),
        **own,
    )


def _expert(ask: Ask, shown: Shown) -> dict[str, Any]:
    holders = kin.holders(ask.store.database, shown.head, ask.visitor, limit=_MOST_HOLDERS)
    return {"card": _card(ask, shown), "holders": holders}


def _card(ask: Ask, shown: Shown) -> Card | None:
    """Return the card of an expert, or None where it is none; only a hub without a gate holds such."""
    try:
        return parse_card(ask.store.heads.documents.mapping(shown.tree, CARD_FILE), source=CARD_FILE)
    except MoehubError:
        return None


def _moe(ask: Ask, shown: Shown) -> dict[str, Any]:
    documents, members = ask.store.heads.documents, shown.head.members
    config, lock = (documents.mapping(shown.tree, name) for name in (MOE_CONFIG, MOE_LOCK))
    names = [member.name for member in members]
    kept = measured(shown.tree, documents)
    texts = kept.texts if kept else {}
    return {
        "base": _facts(config.get("base")),
        "gate_facts": _facts(config.get("router")),
        "null": _facts(lock.get("null")),
        "published": kin.published(ask.store.database, members, ask.visitor),
        "styles": {name: shares.style(name, names) for name in (*names, "null")},
        "texts": [
            (name, text, figures.gain(text.base_loss, text.loss), shares.parts(text.routing, names))
            for name, text in texts.items()
        ],
    }


def _other(_ask: Ask, _shown: Shown) -> dict[str, Any]:
    return {}


def _facts(values: Any) -> dict[str, str]:
    """Return what a stranger's mapping holds of plain values, as text."""
    if not isinstance(values, dict):
        return {}
    plain = ((name, value) for name, value in values.items() if isinstance(value, str | int | float | bool))
    return {figures.clip(name, 40): figures.clip(_value(value)) for name, value in islice(plain, _MOST_FACTS)}


def _value(value: str | float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and abs(value) >= 10**18:
        return figures.number(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _base_argument(head: Head) -> str:
    """Return what stands for the base in commands to copy: nothing that a shell would obey."""
    try:
        return check_repo(head.base or "")
    except HubError:
        return "BASE"


def _readme(ask: Ask, shown: Shown) -> Markup | None:
    """Return the README as HTML, or None where there is none, or it is too long to be shown."""
    text = ask.store.heads.documents.text(shown.tree, README, markdown.LONGEST)
    if not text.strip():
        return None
    return markdown.render(text, path(shown.repo.namespace, shown.repo.name, "blob", shown.head.oid) + "/")
