"""The files of a commit, as folders or by their names."""

import hashlib
from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from moehub.hubserver.api import paging
from moehub.hubserver.api.call import Call, fields
from moehub.hubserver.api.details import commit_named
from moehub.hubserver.refusals import RefusedError, no_entry
from moehub.hubserver.store.history import Commit
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Entry, Tree

_MOST = 1000
_MOST_EXPANDED = 100
_MOST_COMMITS = 500
"""How far back is looked for the commit that last changed a file; beyond, the oldest of these is given."""


def listing(call: Call) -> JSONResponse:
    """Answer what is in a folder of a commit, and with `recursive` below it.

    Raises:
        RefusedError: there is no such repo, revision or folder.
    """
    repo = call.repo(content=True)
    oid = commit_named(call, repo, call.parts["revision"])
    folder = call.parts.get("path", "").strip("/")
    items = _items(call.store.history.tree(repo, oid) if oid else {}, folder, recursive=call.asks("recursive"))
    if folder and not items:
        raise no_entry(repo.id, folder, oid)
    expand, after = call.asks("expand"), paging.cursor(call)
    limit = paging.limit(call, _MOST_EXPANDED if expand else _MOST)
    names = sorted(path for path in items if after is None or path > after)
    shown = {path: items[path] for path in names[:limit]}
    if expand:
        _add_last_commits(call, repo, oid, shown)
    return paging.page(call, list(shown.values()), names[limit - 1] if len(names) > limit else None)


def paths(call: Call) -> JSONResponse:
    """Answer what some paths of a commit are; those that are not there are left out.

    Raises:
        RefusedError: there is no such repo or revision, or more is asked for than is answered at once.
    """
    repo = call.repo(content=True)
    oid = commit_named(call, repo, call.parts["revision"])
    form = fields(call.body)
    wanted = dict.fromkeys(path.strip("/") for path in form.get("paths", []))
    if len(wanted) > _MOST:
        raise RefusedError(400, f"{len(wanted)} paths are asked for, expected at most {_MOST} at once")
    items = _items(call.store.history.tree(repo, oid) if oid else {}, "", recursive=True)
    shown = {path: items[path] for path in wanted if path in items}
    if form.get("expand", [""])[0].lower() in ("true", "1"):
        _add_last_commits(call, repo, oid, shown)
    return JSONResponse(list(shown.values()))


def _items(tree: Tree, folder: str, *, recursive: bool) -> dict[str, dict[str, Any]]:
    """Return what is in a folder by its path: files, and folders named after what is in them."""
    start = f"{folder}/" if folder else ""
    items: dict[str, dict[str, Any]] = {}
    inside: dict[str, Any] = {}
    for path in sorted(tree):
        if not path.startswith(start):
            continue
        parts = path[len(start) :].split("/")
        for depth in range(1, len(parts)) if recursive else (1,) * (len(parts) > 1):
            name = start + "/".join(parts[:depth])
            inside.setdefault(name, hashlib.sha1(usedforsecurity=False)).update(f"{path}\0{tree[path].oid}\n".encode())
        if recursive or len(parts) == 1:
            items[path] = _file(path, tree[path])
    for name, digest in inside.items():
        items[name] = {"type": "directory", "path": name, "oid": digest.hexdigest(), "size": 0}
    return items


def _file(path: str, entry: Entry) -> dict[str, Any]:
    item: dict[str, Any] = {"type": "file", "path": path, "oid": entry.oid, "size": entry.size}
    if entry.lfs:
        item["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    return item


def _add_last_commits(call: Call, repo: Repo, oid: str, items: Mapping[str, dict[str, Any]]) -> None:
    """Say of each item which commit made it what it is."""
    waiting, newer = set(items), None
    for number, commit in enumerate(call.store.history.before(repo, oid) if oid else ()):
        if newer is not None:
            before = _items(call.store.history.tree(repo, commit.oid), "", recursive=True)
            changed = {path for path in waiting if before.get(path, {}).get("oid") != items[path]["oid"]}
            _add(items, changed, newer)
            waiting -= changed
        newer = commit
        if not waiting or number == _MOST_COMMITS:
            break
    if newer is not None:
        _add(items, waiting, newer)


def _add(items: Mapping[str, dict[str, Any]], paths: set[str], commit: Commit) -> None:
    for path in paths:
        items[path]["lastCommit"] = {"id": commit.oid, "title": commit.title, "date": commit.date}
