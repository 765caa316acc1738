"""Lists of repos: everything that the hub offers for a base, and everything of one author."""

from dataclasses import replace

from starlette.responses import Response

from moehub.hubserver.pages.ask import Ask
from moehub.hubserver.pages.page import page, path, with_query
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.heads import Question

_AT_ONCE = 50
_MOST_BASES = 200
_LONGEST_SEARCH = 200
_KINDS = {"expert": "Experts", "moe": "MoEs", "other": "Others"}


def home(ask: Ask) -> Response:
    """Return the first page: the experts of a base, or of all."""
    return _list(ask, None)


def author(ask: Ask, namespace: str) -> Response:
    """Return what one author published.

    Raises:
        RefusedError: nothing that the visitor may see.
    """
    first = ask.store.heads.find(Question(author=namespace), ask.visitor, limit=1)
    if not first:
        raise RefusedError(404, f"nobody called {namespace!r:.100} published anything here that you may see")
    return _list(ask, first[0].repo.namespace)


def _list(ask: Ask, namespace: str | None) -> Response:
    search, base = ask.first("search")[:_LONGEST_SEARCH], ask.first("base")
    everything = Question(search=search, base=base or None, author=namespace)
    counts = ask.store.heads.tally(everything, ask.visitor)
    kind = _kind(ask.first("kind"), counts, chosen=bool(namespace or search or base))
    question = replace(everything, kind=kind)
    found = ask.store.heads.find(question, ask.visitor, limit=_AT_ONCE + 1, after=ask.first("after") or None)
    shown = found[:_AT_ONCE]
    here = path(namespace) if namespace else "/"
    asked = {"search": search, "base": base}
    return page(
        ask,
        "list.j2",
        author=namespace,
        kind=kind,
        search=search,
        base=base,
        here=here,
        heads=shown,
        bases=_bases(ask, namespace, kind, base),
        tabs=[
            (title, counts.get(name, 0), name == kind, with_query(here, kind=name, **asked))
            for name, title in _KINDS.items()
        ],
        first=with_query(here, kind=kind, **asked) if ask.first("after") else None,
        following=with_query(here, kind=kind, **asked, after=shown[-1].place) if len(found) > _AT_ONCE else None,
    )


def _kind(asked: str, counts: dict[str, int], *, chosen: bool) -> str:
    """Return the kind that was asked for; else experts, or what there is of what was looked for."""
    if asked in _KINDS:
        return asked
    return next((name for name in _KINDS if chosen and counts.get(name)), "expert")


def _bases(ask: Ask, namespace: str | None, kind: str, base: str) -> list[tuple[str, int]]:
    """Return the bases to choose from, and how many repos each has; the chosen one is among them."""
    found = ask.store.heads.bases(Question(author=namespace, kind=kind), ask.visitor, limit=_MOST_BASES)
    return found if not base or base in dict(found) else [(base, 0), *found]
