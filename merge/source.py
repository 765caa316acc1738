"""Where an expert comes from: a folder, or a repo on a hub at one commit."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from moehub.card import CARD_FILE, STATISTICS_FILE
from moehub.errors import MergeError
from moehub.experts.folder import Expert, open_expert
from moehub.experts.statistics import Statistics
from moehub.hub import open_hub


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


def resolve(reference: str, *, hub: str | None, workspace: Path) -> Source:
    """Return the expert that a folder or `org/name[@rev]` names; what comes from a hub lands below `workspace`.

    Raises:
        MergeError: there is neither a folder nor such a repo.
        ExpertError: what is there is no expert, or not the one its card pins.
        HubError: the hub cannot be reached or refuses.
    """
    folder = Path(reference).expanduser()
    if (folder / CARD_FILE).is_file() or folder.is_dir():
        return Source(str(folder.absolute()), None, open_expert(folder.absolute()))
    repo, _, revision = reference.partition("@")
    if repo.count("/") != 1 or repo.startswith((".", "/")):
        raise MergeError(f"there is no folder {reference}: expected an expert's folder, or org/name on a hub")
    landing = workspace / repo.replace("/", "--")
    commit = open_hub(hub).pull(repo, revision or None, landing)
    return Source(repo, commit, open_expert(landing))
