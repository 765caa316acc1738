"""Pushes straight into a store, without a server."""

from collections.abc import Mapping

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.store import trees
from moehub.hubserver.store.history import Change
from moehub.hubserver.store.repos import MAIN, Repo
from moehub.hubserver.store.store import Store
from moehub.hubserver.store.trees import Entry
from moehub.hubserver.visitor import EVERYBODY


def repo_of(store: Store, name: str) -> Repo:
    """Return a repo, made where there is none."""
    try:
        return store.repos.create(name, EVERYBODY)
    except RefusedError as error:
        if error.status != 409:
            raise
        return store.repos.get(name, EVERYBODY)


def upload(store: Store, repo: Repo, path: str, content: bytes) -> Entry:
    """Upload a file as a client does: weights as a large file, the rest as a small one."""
    blob = store.uploads.take_bytes(content, repo.number)
    if path.endswith(".safetensors"):
        return trees.large(blob.sha256, blob.size)
    return trees.regular(content, blob.sha256)


def push(
    store: Store,
    name: str,
    files: Mapping[str, bytes],
    *,
    deleted: tuple[str, ...] = (),
    branch: str = MAIN,
    parent: str | None = None,
    author: str = "ada",
) -> str:
    """Upload files to a repo, commit them, and return the commit; `deleted` are files that may be gone already."""
    repo = repo_of(store, name)
    entries = {path: upload(store, repo, path, content) for path, content in files.items()}
    refs = {ref.name: ref.oid for ref in store.repos.refs(repo)}
    there = store.history.tree(repo, refs[branch]) if refs[branch] else {}
    change = Change(entries, tuple(path for path in deleted if path in there))
    return store.history.commit(repo, branch, change, title="a push", author=author, parent=parent)
