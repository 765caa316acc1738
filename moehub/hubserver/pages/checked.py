"""What the admission gate said about the experts in a repo, for people."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moehub.hub.parcel import SIGNATURES
from moehub.hubserver.candidates import candidates
from moehub.hubserver.pages.ask import Ask
from moehub.hubserver.store.repos import Repo
from moehub.hubserver.store.trees import Tree


@dataclass(frozen=True)
class Checked:
    """The gate's verdict on one expert."""

    folder: str
    """Where the expert lies in the repo; empty: the repo itself."""
    admitted: bool | None
    """None: nobody asked the gate."""
    time: str = ""
    """When it was asked."""
    made: tuple[str, ...] = ()
    """Codes of the checks that were made."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Codes of those that could not be made here, and why."""


def checked(ask: Ask, repo: Repo, tree: Tree) -> list[Checked]:
    """Return the gate's verdict on each expert in a commit."""
    return [
        _checked(candidate.folder, ask.store.verdicts.get(candidate.key)) for candidate in candidates(repo.id, tree)
    ]


def signed(tree: Tree) -> bool:
    """Return whether a commit holds a publisher's signature, of whatever key."""
    return any(name in tree for name in SIGNATURES.values())


def _checked(folder: str, verdict: Mapping[str, Any] | None) -> Checked:
    if verdict is None:
        return Checked(folder, None)
    left_out = tuple((str(one["code"]), str(one["reason"])) for one in verdict.get("skipped", ()))
    made = tuple(code for code in verdict.get("seconds", {}) if code not in dict(left_out))
    return Checked(folder, bool(verdict["admitted"]), verdict["checked"], made, left_out)
