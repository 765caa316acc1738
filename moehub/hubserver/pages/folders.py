"""The files of a revision: folders, and single files."""

from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import RedirectResponse, Response

from moehub.hubserver.pages.ask import Ask
from moehub.hubserver.pages.page import below, page, path
from moehub.hubserver.refusals import no_entry
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Entry, Tree

_MOST_TEXT = 1 << 17
"""Bytes of a file that is shown; a larger one can be downloaded."""
_MOST_ITEMS = 2000


@dataclass(frozen=True)
class Item:
    """One line of a folder."""

    name: str
    path: str
    size: int
    files: int
    """How many files are below a folder."""
    entry: Entry | None
    """None: a folder."""


def tree(ask: Ask, repo: Repo, revision: str, folder: str) -> Response:
    """Return the page of a folder, or lead to the page of a file.

    Raises:
        RefusedError: there is no such revision or folder.
    """
    oid = ask.store.repos.resolve(repo, revision)
    files = ask.store.history.tree(repo, oid)
    if folder in files:
        return RedirectResponse(below(path(*repo.id.split("/"), "blob", revision), folder), 302)
    items = _items(files, folder)
    if folder and not items:
        raise no_entry(repo.id, folder, oid)
    return page(
        ask,
        "tree.j2",
        repo=repo,
        tab="files",
        revision=revision,
        oid=oid,
        folder=folder,
        steps=_steps(folder),
        items=items[:_MOST_ITEMS],
        left=max(0, len(items) - _MOST_ITEMS),
        refs=ask.store.repos.refs(repo),
    )


def blob(ask: Ask, repo: Repo, revision: str, name: str) -> Response:
    """Return the page of a file, with its text where it is one and not too long.

    Raises:
        RefusedError: there is no such revision or file.
    """
    oid = ask.store.repos.resolve(repo, revision)
    entry = ask.store.history.tree(repo, oid).get(name)
    if entry is None:
        raise no_entry(repo.id, name, oid)
    return page(
        ask,
        "blob.j2",
        repo=repo,
        tab="files",
        revision=revision,
        oid=oid,
        folder=name,
        steps=_steps(name),
        entry=entry,
        text=_text(ask, entry),
    )


def _items(files: Tree, folder: str) -> list[Item]:
    """Return what is in a folder: folders first, by name."""
    start = f"{folder}/" if folder else ""
    inside: dict[str, dict[str, Entry]] = {}
    for name, entry in files.items():
        if name.startswith(start):
            first, slash, _ = name[len(start) :].partition("/")
            inside.setdefault(first + slash, {})[name] = entry
    found = [_item(name, start, entries) for name, entries in inside.items()]
    return sorted(found, key=lambda item: (item.entry is not None, item.name.lower(), item.name))


def _item(name: str, start: str, entries: Mapping[str, Entry]) -> Item:
    size = sum(entry.size for entry in entries.values())
    entry = None if name.endswith("/") else entries[start + name]
    return Item(name.rstrip("/"), start + name.rstrip("/"), size, len(entries), entry)


def _steps(folder: str) -> list[tuple[str, str]]:
    """Return the names on the way to a folder, and the path of each."""
    parts = folder.split("/") if folder else []
    return [(part, "/".join(parts[: depth + 1])) for depth, part in enumerate(parts)]


def _text(ask: Ask, entry: Entry) -> str | None:
    if entry.size > _MOST_TEXT:
        return None
    try:
        text = ask.store.blobs.path(entry.sha256).read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return None
    return None if "\0" in text else text
