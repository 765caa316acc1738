"""What the API says about one repo."""

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from moehub.hubserver.api.call import Call
from moehub.hubserver.store.heads import Head
from moehub.hubserver.store.repos import MAIN, Repo
from moehub.hubserver.store.trees import Tree

_ALWAYS = frozenset({"_id", "id", "modelId"})


def model(call: Call) -> JSONResponse:
    """Answer what a repo is and which files a revision of it has.

    Raises:
        RefusedError: there is no such repo or revision.
    """
    repo = call.repo()
    revision = call.parts.get("revision", MAIN)
    oid = commit_named(call, repo, revision)
    tree = call.store.history.tree(repo, oid) if oid else {}
    said = describe(repo, call.store.heads.get(repo))
    said["sha"] = oid or None
    said["siblings"] = files(tree, blobs=call.asks("blobs"))
    said["usedStorage"] = sum(entry.size for entry in tree.values())
    if oid:
        said["lastModified"] = next(call.store.history.before(repo, oid)).date
    return JSONResponse(expanded(call, said))


def commit_named(call: Call, repo: Repo, revision: str) -> str:
    """Return the commit that a revision names; empty for a branch without commits.

    Raises:
        RefusedError: the repo has no such revision.
    """
    for ref in call.store.repos.refs(repo):
        if ref.name == revision and not ref.oid:
            return ""
    return call.store.repos.resolve(repo, revision)


def describe(repo: Repo, head: Head | None) -> dict[str, Any]:
    """Return what is said about a repo, without its files."""
    said: dict[str, Any] = {
        "_id": str(repo.number),
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.namespace,
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "createdAt": repo.created,
        "lastModified": head.modified if head else repo.created,
        "sha": head.oid if head else None,
        "tags": head.tags if head else [],
        "cardData": head.card or None if head else None,
    }
    for name in ("library_name", "pipeline_tag", "model-index"):
        if head and head.card.get(name) is not None:
            said[name] = head.card[name]
    return said


def files(tree: Tree, *, blobs: bool) -> list[dict[str, Any]]:
    """Return the files of a commit; with `blobs` what they hold, too."""
    if not blobs:
        return [{"rfilename": path} for path in sorted(tree)]
    return [{"rfilename": path, **_blob(tree, path)} for path in sorted(tree)]


def _blob(tree: Tree, path: str) -> dict[str, Any]:
    entry = tree[path]
    said: dict[str, Any] = {"size": entry.size, "blobId": entry.oid}
    if entry.lfs:
        said["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return said


def expanded(call: Call, said: Mapping[str, Any]) -> dict[str, Any]:
    """Return only what the visitor asked for with `expand`; everything where they did not."""
    asked = {*call.query.get("expand", []), *call.query.get("expand[]", [])}
    return {name: value for name, value in said.items() if not asked or name in asked | _ALWAYS}
