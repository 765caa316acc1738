"""Lists of repos."""

import contextlib
from typing import Any

from starlette.responses import JSONResponse

from moehub.hubserver.api import paging
from moehub.hubserver.api.call import Call
from moehub.hubserver.api.details import describe, expanded, files
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store.heads import Head, Question

_MOST = 1000
_MOST_WITH_FILES = 100
_MOST_CONDITIONS = 50


def models(call: Call) -> JSONResponse:
    """Answer the repos that the visitor looks for and may see, newest first.

    Raises:
        RefusedError: `limit` or `cursor` mean nothing, or too much is asked for.
    """
    asked = {*call.query.get("expand", []), *call.query.get("expand[]", [])}
    full = call.asks("full") or "siblings" in asked
    limit = paging.limit(call, _MOST_WITH_FILES if full else _MOST)
    question = Question(search=call.first("search"), tags=_tags(call), author=call.first("author") or None)
    if len(question.tags) + len(question.search.split()) > _MOST_CONDITIONS:
        raise RefusedError(400, f"a search may have {_MOST_CONDITIONS} filters and words: leave some out")
    found = call.store.heads.find(question, call.visitor, limit=limit + 1, after=paging.cursor(call))
    shown = found[:limit]
    card = call.asks("cardData") or "cardData" in asked
    said = [expanded(call, _said(call, head, full=full, card=card)) for head in shown]
    return paging.page(call, said, shown[-1].place if len(found) > limit else None)


def _tags(call: Call) -> tuple[str, ...]:
    return (*call.query.get("filter", []), *call.query.get("pipeline_tag", []))


def _said(call: Call, head: Head, *, full: bool, card: bool) -> dict[str, Any]:
    said = describe(head.repo, head)
    if not card:
        del said["cardData"]
    if full:
        with contextlib.suppress(RefusedError):  # it was deleted in this moment
            said["siblings"] = files(call.store.history.tree(head.repo, head.oid), blobs=False)
    return said
