"""Which MoEs hold an expert, and where a MoE's experts are published."""

from collections.abc import Sequence

from moehub.hubserver.store.database import Database
from moehub.hubserver.store.heads import SELECT, Head, Question, conditions, head_of
from moehub.hubserver.store.members import Member
from moehub.hubserver.visitor import Visitor

_AT_ONCE = 500
"""Values in one statement."""
_BEST = """
order by exists (select 1 from member where member.repo = head.repo and card = ?) desc, head.modified desc,
head.repo desc limit ?
"""


def holders(database: Database, expert: Head, visitor: Visitor, *, limit: int) -> list[tuple[Head, Member]]:
    """Return the MoEs that hold an expert and that the visitor may read, with what it is in each.

    Those that hold the very expert come first, then those that say that they hold another version of it, newest first.
    """
    where, values = conditions(Question(kind="moe"), visitor)
    own = (expert.manifest, expert.repo.id.lower())
    where.append("head.repo in (select repo from member where card = ? union select repo from member where source = ?)")
    rows = database.reading().execute(f"{SELECT} where {' and '.join(where)} {_BEST}", (*values, *own, own[0], limit))
    found = [(head, _kin(head.members, *own)) for head in map(head_of, rows)]
    return [(head, member) for head, member in found if member is not None and visitor.may_read(head.repo)]


def published(database: Database, members: Sequence[Member], visitor: Visitor) -> dict[str, str]:
    """Return where experts of a MoE are published: name → repo, as far as the visitor may see it.

    The repo that a member says it came from counts; where that is not here, the oldest that publishes the same card.
    """
    sources = _visible(database, "repo.folded", {one.source.lower() for one in members if one.source}, visitor)
    cards = _visible(database, "head.manifest", {one.card for one in members}, visitor)
    found = {one.name: sources.get((one.source or "").lower()) or cards.get(one.card) for one in members}
    return {name: repo for name, repo in found.items() if repo}


def _kin(members: Sequence[Member], card: str | None, source: str) -> Member | None:
    """Return the member with this card, else one from this source."""
    same = [one for one in members if one.card == card]
    return next(iter([*same, *(one for one in members if (one.source or "").lower() == source)]), None)


def _visible(database: Database, column: str, keys: set[str], visitor: Visitor) -> dict[str, str]:
    """Return the oldest repo with each value in a column, of those that the visitor may see."""
    where, values = conditions(Question(), visitor)
    found: dict[str, str] = {}
    wanted = sorted(keys)
    for begin in range(0, len(wanted), _AT_ONCE):
        some = wanted[begin : begin + _AT_ONCE]
        filters = " and ".join([*where, f"{column} in ({', '.join('?' * len(some))})"])
        rows = database.reading().execute(
            f"select {column}, repo.namespace || '/' || repo.name from repo join head on head.repo = repo.id "  # noqa: S608 (all of it is ours)
            f"where {filters} order by repo.id",
            (*values, *some),
        )
        for key, repo in rows:
            found.setdefault(key, repo)
    return found
