"""Where an expert comes from: a folder, or a repo on a hub at one commit.

What is found is not opened here: the admission gate looks at it first (`moehub.merge.entrance`).
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moehub.card import STATISTICS_FILE
from moehub.errors import MergeError
from moehub.experts.folder import Expert
from moehub.experts.statistics import Statistics
from moehub.hub import arrival, open_hub, seen


@dataclass(frozen=True)
class Source:
    """An expert and where it was found."""

    reference: str
    """`org/name`, or the folder's absolute path."""
    commit: str | None
    """The hub's commit; None for a folder."""
    expert: Expert

    @property
    def pinned(self) -> str:
        """The reference with its commit, as `moehub merge` takes it."""
        return f"{self.reference}@{self.commit}" if self.commit else self.reference

    @cached_property
    def statistics(self) -> Statistics | None:
        """The expert's router statistics, or None where it was published without.

        Raises:
            ExpertError: they are damaged.
        """
        return self.expert.statistics() if (self.expert.folder / STATISTICS_FILE).is_file() else None


@dataclass(frozen=True)
class Found:
    """A folder that somebody calls an expert."""

    reference: str
    """`org/name`, or the folder's absolute path."""
    folder: Path
    commit: str | None = None
    """The hub's commit; None for a folder."""
    hub: str | None = None
    """The hub's location; None for a folder."""
    least_version: int | None = None
    """The highest version of it that was seen on the hub, where nobody named a revision."""

    @property
    def repo(self) -> str | None:
        """`org/name`, where it comes from a hub."""
        return self.reference if self.commit is not None else None


def find(reference: str, *, hub: str | None, workspace: Path) -> Found:
    """Return what a folder or `org/name[@rev]` names, unopened; what comes from a hub lands below `workspace`.

    Raises:
        MergeError: there is neither a folder nor such a repo.
        HubError: the hub cannot be reached or refuses.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return Found(str(folder.absolute()), folder.absolute())
    repo, _, revision = reference.partition("@")
    if repo.count("/") != 1 or repo.startswith((".", "/")):
        raise MergeError(f"there is no folder {reference}: expected an expert's folder, or org/name on a hub")
    source, landing = open_hub(hub), workspace / repo.replace("/", "--")
    commit = source.fetch(repo, revision or None, landing)
    least = seen.highest(source.location, repo) if (revision or None) in arrival.NEWEST else None
    return Found(repo, landing, commit, source.location, least)
