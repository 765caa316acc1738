"""The commits of a repo."""

from itertools import islice

from starlette.responses import JSONResponse

from moehub.hubserver.api import paging
from moehub.hubserver.api.call import Call
from moehub.hubserver.api.details import commit_named

_MOST = 500


def commits(call: Call) -> JSONResponse:
    """Answer the commits of a revision, newest first.

    Raises:
        RefusedError: there is no such repo or revision.
    """
    repo = call.repo(content=True)
    start = paging.cursor(call) or commit_named(call, repo, call.parts["revision"])
    limit = paging.limit(call, _MOST)
    found = list(islice(call.store.history.before(repo, start), limit + 1))
    items = [
        {
            "id": commit.oid,
            "title": commit.title,
            "message": commit.message,
            "date": commit.date,
            "authors": [{"user": commit.author}],
            "formatted": {"title": commit.title, "message": commit.message},
        }
        for commit in found[:limit]
    ]
    return paging.page(call, items, found[limit].oid if len(found) > limit else None)
