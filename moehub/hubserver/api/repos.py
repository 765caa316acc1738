"""Making, deleting and opening repos."""

from starlette.responses import JSONResponse

from moehub.hubserver.api.call import Call
from moehub.hubserver.api.values import Values
from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.repos import MAIN

_ATTRIBUTES = ".gitattributes"
_FIRST = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
"""What a new repo holds: that tensors are large files."""
RESERVED = frozenset({"api", "datasets", "kernels", "login", "logout", "models", "spaces", "static"})
"""Namespaces that would stand where the hub's own addresses are."""


def create(call: Call) -> JSONResponse:
    """Make a repo with its first commit.

    Raises:
        RefusedError: it is no model, may not be made, or its name cannot be one.
    """
    values = call.values()
    repo = _named(call, values)
    if repo.partition("/")[0].lower() in RESERVED:
        raise RefusedError(400, f"{repo} cannot be a repo here: {repo.partition('/')[0]} is the hub's own")
    private = _private(values)
    try:
        made = call.store.repos.create(repo, call.visitor, private=bool(private))
    except RefusedError as error:
        if error.status != 409:
            raise
        # The client asks for the address of what is there already.
        there = call.store.repos.get(repo, call.visitor)
        return JSONResponse({"error": str(error), "url": f"{call.address}/{there.id}"}, 409)
    blob = call.store.uploads.take_bytes(_FIRST, made.number)
    call.store.history.commit(
        made,
        MAIN,
        Change({_ATTRIBUTES: trees.regular(_FIRST, blob.sha256)}),
        title="Make the repo",
        author=call.visitor.name,
    )
    return JSONResponse({"url": f"{call.address}/{made.id}", "name": made.id, "id": str(made.number)})


def delete(call: Call) -> JSONResponse:
    """Delete a repo with everything in it.

    Raises:
        RefusedError: there is none that the visitor may write to.
    """
    call.store.repos.delete(call.store.repos.get(_named(call, call.values()), call.visitor, write=True))
    return JSONResponse({})


def change_settings(call: Call) -> JSONResponse:
    """Change who may see a repo, and who may read it.

    Raises:
        RefusedError: there is none that the visitor may write to, or no such setting.
    """
    repo, values = call.repo(write=True), call.values()
    gated = values.one_of("gated", False, "auto", "manual")
    call.store.repos.set(repo, private=_private(values), gated=gated)
    return JSONResponse({})


def may_read(call: Call) -> JSONResponse:
    """Answer whether the visitor may read a repo's files.

    Raises:
        RefusedError: they may not.
    """
    call.repo(content=True)
    return JSONResponse({})


def may_write(call: Call) -> JSONResponse:
    """Answer whether the visitor may change a repo.

    Raises:
        RefusedError: they may not.
    """
    call.repo(write=True)
    return JSONResponse({})


def _named(call: Call, values: Values) -> str:
    kind = values.text("type", "model")
    if kind != "model":
        raise RefusedError(400, f"this hub holds models, and no {kind!r:.40}: leave the repo's type out")
    return f"{values.text('organization', call.visitor.name)}/{values.text('name')}"


def _private(values: Values) -> bool | None:
    """Return whether a repo is to be private, None where that is left open; older clients say `private`."""
    visibility = values.one_of("visibility", "public", "private")
    asked: bool | None = values.one_of("private", True, False)
    return asked if visibility is None else visibility == "private"
