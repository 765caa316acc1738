"""Small files of a commit that strangers wrote: read up to a size, and empty where they are no such thing."""

import json
from typing import Any

from moehub.hubserver.store.blobs import Blobs
from moehub.hubserver.store.trees import Tree

MOST = 1 << 20
"""Bytes of a file that is looked at; one that is larger says nothing."""


class Documents:
    """The small files of commits."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs

    def text(self, tree: Tree, path: str, most: int = MOST) -> str:
        """Return a file's text; empty where it is not there, or larger than `most` bytes."""
        entry = tree.get(path)
        if entry is None or entry.size > most:
            return ""
        try:
            return self.blobs.path(entry.sha256).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:  # lost by the disk: `moehub hub fsck` says so
            return ""

    def mapping(self, tree: Tree, path: str) -> dict[str, Any]:
        """Return the JSON object in a file; empty where there is none."""
        try:
            values = plain(json.loads(self.text(tree, path)))
        except (ValueError, TypeError, RecursionError):
            return {}
        return values if isinstance(values, dict) else {}


def plain(values: Any) -> Any:
    """Return values as JSON can hold them, and text as UTF-8 can: dates as text, numbers that are none as null.

    Raises:
        ValueError: they cannot be.
        TypeError: the same.
        RecursionError: they are nested too deeply.
    """
    text = json.dumps(values, default=str, ensure_ascii=False)
    text.encode()
    return json.loads(text, parse_constant=lambda _: None)
