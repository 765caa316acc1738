"""The finished experts of a federation go to a hub."""

from collections.abc import Sequence
from pathlib import Path

from moehub.errors import FederationError
from moehub.hub import Hub, Published, check_repo
from moehub.hub.parcel import Parcel, pack

EXPERTS = "experts"
"""The folder below a federation's output that the finished experts stand in."""


def finished(output: Path) -> list[Parcel]:
    """Return the finished experts of the federation in `output`, each checked file by file.

    Raises:
        FederationError: there are none.
        HubError: one of them is not what its card says.
    """
    folders = sorted(path for path in (output / EXPERTS).glob("*") if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise FederationError(
            f"{output} holds no finished expert: let the federation end first (`moehub federate status`), "
            "or name its output folder"
        )
    return [pack(folder) for folder in folders]


def push(
    experts: Sequence[Parcel], organisation: str, hub: Hub, *, message: str, private: bool, key: Path | None = None
) -> list[Published]:
    """Publish each expert as ORGANISATION/NAME and return where they are; the same files again make no new commit.

    Raises:
        HubError: the organisation's name cannot be one, or the hub refuses.
        SigningError: the private key in the file `key` cannot sign.
    """
    repos = [check_repo(f"{organisation}/{expert.name}") for expert in experts]
    return [
        hub.push(expert.folder, repo, message=message, private=private, key=key)
        for expert, repo in zip(experts, repos, strict=True)
    ]
