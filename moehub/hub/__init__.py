"""Hubs: where experts and MoEs are published and fetched.

location                       hub
None                           huggingface.co, or the hub that HF_ENDPOINT names     moehub.hub.remote
http://…, https://…            any server that speaks the Hugging Face Hub API       moehub.hub.remote
file:PATH, or a path           a folder, for one machine, a shared disk, or tests    moehub.hub.folder
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from moehub.card import BasePin, Metrics
from moehub.errors import HubError

_REPO_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_-])?")

PEEKED_BYTES = 1 << 22
"""A file of more bytes is not small."""


@dataclass(frozen=True)
class Published:
    """Where a push ended up."""

    repo: str
    """`org/name`."""
    commit: str
    """The commit that holds exactly the folder that was pushed."""
    url: str
    """Where a person can look at it."""


@dataclass(frozen=True)
class Listing:
    """One expert that a hub offers, as far as its card says."""

    repo: str
    """`org/name`: what `moehub pull` and `moehub merge --expert` take."""
    name: str
    """The expert's name."""
    domain: str
    """What its text was about."""
    base: BasePin
    """The base it belongs to."""
    license: str
    """SPDX identifier, or `other`."""
    commit: str
    """The newest commit of `main`."""
    metrics: Metrics | None
    """Held-out losses, where the publisher measured them."""


class Hub(Protocol):
    """What every hub can do."""

    @property
    def location(self) -> str:
        """The hub's address, as `open_hub` takes it."""

    def push(
        self, folder: Path, repo: str, *, message: str, private: bool = False, key: Path | None = None
    ) -> Published:
        """Publish an expert or a MoE as the newest commit of `repo`; nothing new makes no new commit.

        Where the hub holds another expert of the same version or a newer one, the version in the folder's card is
        raised first. With the private key in the file `key`, the folder is signed.

        Raises:
            HubError: the folder may not travel, or the hub refuses.
            SigningError: the key cannot sign, or nothing to sign with is installed.
        """

    def pull(self, repo: str, revision: str | None, destination: Path) -> str:
        """Fetch a commit (`main` where `revision` is None), check every file, and return the commit.

        `destination` appears whole or stays as it was. `arrival` says what is checked.

        Raises:
            HubError: no such repo or revision, a file is not what was published, the publisher's key is pinned and
                did not sign it, or it is older than what was seen before.
            SigningError: a key is pinned, and cannot be used or nothing to verify with is installed.
        """

    def fetch(self, repo: str, revision: str | None, destination: Path) -> str:
        """Fetch a commit and believe nothing of it: for the admission gate, which opens the files first.

        Files that are larger than any of their kind are not fetched.

        Raises:
            HubError: no such repo or revision, it is neither an expert nor a MoE, or a file is not the one that the hub
                says it is, or too large.
        """

    def peek(self, repo: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return those of these small files that the newest commit of `repo` holds; none where there is no such repo.

        Raises:
            HubError: the hub cannot be reached, or refuses.
        """

    def experts(self, base: str | None = None) -> list[Listing]:
        """Return the experts on offer, in the order of their repos; `base` keeps those of one base reference.

        Raises:
            HubError: the hub cannot be reached.
        """

    def check(self, timeout: float) -> str:
        """Return one sentence about the hub and who we are to it, within `timeout` seconds.

        Raises:
            HubError: it cannot be reached, or refuses us.
        """

    def token_cure(self) -> str | None:
        """Return how to give us a token for this hub, or None where we have one or need none."""


def open_hub(location: str | None = None) -> Hub:
    """Return the hub at `location`; nothing is read or sent before one of its methods is called.

    Raises:
        HubError: the location is of no known kind.
    """
    if location is None or location.startswith(("http://", "https://")):
        from moehub.hub.remote import RemoteHub

        return RemoteHub(location)
    scheme, colon, rest = location.partition(":")
    if (colon and scheme != "file" and rest.startswith("//")) or not location:
        raise HubError(f"{location!r} is no hub, expected a URL beginning with https:// or http://, or a folder")
    from moehub.hub.folder import FolderHub

    path = rest.removeprefix("//") if colon and scheme == "file" else location
    return FolderHub(Path(path).expanduser())


def split_reference(reference: str) -> tuple[str, str | None]:
    """Return repo and revision of `org/name` or `org/name@revision`.

    Raises:
        HubError: it is neither.
    """
    repo, at, revision = reference.partition("@")
    if at and not revision:
        raise HubError(f"{reference!r} ends in @, expected a branch, tag or commit after it, as in {repo}@main")
    return check_repo(repo), revision or None


def check_repo(repo: str) -> str:
    """Return `repo` if it may name a repository on any hub.

    Raises:
        HubError: it is not `org/name`, or could lead outside a folder.
    """
    parts = repo.split("/")
    named = all(_REPO_PART.fullmatch(part) and ".." not in part and "--" not in part for part in parts)
    if len(parts) != 2 or not named or repo.endswith(".git"):
        raise HubError(
            f"{repo!r} cannot name a repo, expected org/name of letters, digits, '.', '_' and '-', as in acme/law"
        )
    return repo
