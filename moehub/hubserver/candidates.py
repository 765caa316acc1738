"""The experts that a commit would hold: what the admission gate has to see."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from moehub import files
from moehub.card import CARD_FILE
from moehub.hub.parcel import MOE_CONFIG
from moehub.hubserver.store.trees import Entry, Tree

_EXPERTS = "experts"
_GIT_ATTRIBUTES = ".gitattributes"
"""The client's own file: it belongs to a repo, never to an expert."""


@dataclass(frozen=True)
class Candidate:
    """An expert that the gate has to see."""

    repo: str | None
    """`org/name` of the repo that it is published as; None inside a MoE, whose repo is not the expert's own."""
    folder: str
    """Where it lies in the repo; empty: the repo itself."""
    files: Mapping[str, Entry]
    """Name below the folder → entry."""

    @property
    def key(self) -> str:
        """What its verdict is kept under: the bytes of its files, and the repo that publishes it."""
        digest = files.digest_of({name: entry.sha256 for name, entry in self.files.items()})
        return hashlib.sha256(f"{self.repo or ''}\0{digest}".encode()).hexdigest()

    def named(self, repo: str) -> str:
        """Return what to call it in messages about the repo that holds it."""
        return f"{repo}/{self.folder}" if self.folder else repo


def candidates(repo: str, tree: Tree) -> list[Candidate]:
    """Return every expert in a tree: the repo itself where it has a card, and the folders below `experts/`.

    In a repo with a `config.json`, which might be opened as a MoE, each of those folders counts, card or no card.
    """
    found = []
    if CARD_FILE in tree:
        own = {path: entry for path, entry in tree.items() if path != _GIT_ATTRIBUTES}
        found.append(Candidate(repo, "", own))
    return found + [
        Candidate(None, folder, inside)
        for folder, inside in _folders(tree)
        if CARD_FILE in inside or MOE_CONFIG in tree
    ]


def _folders(tree: Tree) -> Iterator[tuple[str, dict[str, Entry]]]:
    """Yield `experts/NAME` and what lies below, by name."""
    found: dict[str, dict[str, Entry]] = {}
    for path, entry in sorted(tree.items()):
        top, _, rest = path.partition("/")
        name, slash, below = rest.partition("/")
        if top == _EXPERTS and slash:
            found.setdefault(f"{_EXPERTS}/{name}", {})[below] = entry
    yield from found.items()
