"""What is checked of everything that arrives from a hub: the files, who signed them, and that they are not old ones."""

from pathlib import Path

from moehub.card import read_card
from moehub.errors import HubError, listed
from moehub.hub import parcel, seen
from moehub.signing import signature
from moehub.signing.keyring import Keyring

NEWEST = (None, "main")
"""Revisions that ask for the newest commit; any other was chosen by name."""


def accept(folder: Path, *, hub: str, repo: str, revision: str | None) -> None:
    """Check what `repo` on the hub at `hub` delivered into `folder`, and remember its version.

    Raises:
        HubError: a file is not the one that a card pins, the signature of a publisher whose key is pinned is bad or
            missing, or the version is older than one that was seen and nobody asked for it.
        SigningError: a key is pinned, and cannot be used or nothing to verify with is installed.
    """
    kind = parcel.verify(folder)
    _check_signature(folder, kind, hub, repo)
    if kind == "expert":
        version = read_card(folder).version
        if revision in NEWEST:
            _check_version(version, hub, repo)
        seen.remember(hub, repo, version)


def _check_signature(folder: Path, kind: parcel.Kind, hub: str, repo: str) -> None:
    pin = Keyring.open_default().for_repo(repo)
    if pin is None:
        return
    if faults := signature.faults(folder, parcel.SIGNATURES[kind], repo=repo, key=pin.key):
        cure = f"pull again, or ask {pin.publisher}; `moehub keys list` shows whose keys are pinned here"
        raise HubError(
            listed(f"{repo} on {hub} is not what {pin.publisher} signed:", [f"{one}: {cure}" for one in faults])
        )


def _check_version(version: int, hub: str, repo: str) -> None:
    highest = seen.highest(hub, repo)
    if highest is not None and version < highest:
        raise HubError(
            f"{hub} offers version {version} of {repo}, but version {highest} was seen there before: an old one may "
            f"be passed off as new; ask its publisher, or name the commit that you want, as in {repo}@COMMIT"
        )
