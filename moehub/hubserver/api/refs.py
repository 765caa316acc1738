"""Branches and tags."""

from typing import Any

from starlette.responses import JSONResponse

from moehub.hubserver.api.call import Call
from moehub.hubserver.api.values import read
from moehub.hubserver.store.repos import MAIN, Repo

_BRANCH, _TAG = "branch", "tag"
_PREFIX = {_BRANCH: "refs/heads/", _TAG: "refs/tags/"}


def refs(call: Call) -> JSONResponse:
    """Answer the branches and tags of a repo.

    Raises:
        RefusedError: there is no such repo.
    """
    repo = call.repo()
    named = {f"{kind}{'es' if kind == _BRANCH else 's'}": _of_kind(call, repo, kind) for kind in _PREFIX}
    return JSONResponse({**named, "converts": [], "pullRequests": []})


def make_branch(call: Call) -> JSONResponse:
    """Make a branch; it begins at `startingPoint`, or at the newest commit of `main`.

    Raises:
        RefusedError: its name cannot be one or is taken, or there is no such beginning.
    """
    repo = call.repo(write=True)
    values = read(call.body or b"{}")
    start = call.store.repos.resolve(repo, values.text("startingPoint", MAIN))
    call.store.repos.name(repo, call.parts["ref"], _BRANCH, start)
    return JSONResponse({})


def make_tag(call: Call) -> JSONResponse:
    """Make a tag of a revision.

    Raises:
        RefusedError: its name cannot be one or is taken, or there is no such revision.
    """
    repo = call.repo(write=True)
    tag = call.values().text("tag")
    call.store.repos.name(repo, tag, _TAG, call.store.repos.resolve(repo, call.parts["ref"]))
    return JSONResponse({})


def remove_branch(call: Call) -> JSONResponse:
    """Take a branch away.

    Raises:
        RefusedError: there is none, or it is `main`.
    """
    call.store.repos.unname(call.repo(write=True), call.parts["ref"], _BRANCH)
    return JSONResponse({})


def remove_tag(call: Call) -> JSONResponse:
    """Take a tag away.

    Raises:
        RefusedError: there is none.
    """
    call.store.repos.unname(call.repo(write=True), call.parts["ref"], _TAG)
    return JSONResponse({})


def _of_kind(call: Call, repo: Repo, kind: str) -> list[dict[str, Any]]:
    return [
        {"name": ref.name, "ref": _PREFIX[kind] + ref.name, "targetCommit": ref.oid}
        for ref in call.store.repos.refs(repo)
        if ref.kind == kind
    ]
