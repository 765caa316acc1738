"""The invitation: one file that tells a contributor where the server is and how to know it. Nothing in it is secret."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

from moehub import config, files
from moehub.card import BasePin
from moehub.errors import ConfigError

_FORMAT = 1
_LARGEST = 1 << 20


@dataclass(frozen=True)
class Invitation:
    """What a contributor needs to take part."""

    address: str
    """HOST:PORT of the server."""
    certificate: str = ""
    """The authority that the server is known by, in PEM; empty: one that every system trusts."""
    base: BasePin | None = None
    """The base that everybody trains on, where it is settled."""
    aggregation: str = ""
    """How adapters become one, where it is settled."""
    insecure: bool = False
    """Whether there is no TLS: on one machine, for a try."""
    format: int = _FORMAT


def write(path: Path, invitation: Invitation) -> None:
    """Write an invitation."""
    files.write_text(path, to_json(invitation))


def to_json(invitation: Invitation) -> str:
    """Return an invitation as it stands in a file."""
    return files.to_json(dataclasses.asdict(invitation))


def read(path: Path) -> Invitation:
    """Return the invitation in a file.

    Raises:
        ConfigError: it is none.
    """
    try:
        return _parsed(path)
    except (OSError, ValueError, AttributeError, TypeError, ConfigError) as error:
        raise ConfigError(
            f"{path} is no invitation to a federation ({error}): ask its operator for what `moehub federate invite` "
            "wrote"
        ) from error


def _parsed(path: Path) -> Invitation:
    if path.stat().st_size > _LARGEST:
        raise ConfigError(f"it is larger than {_LARGEST:,} bytes")
    values = json.loads(path.read_text(encoding="utf-8"))
    pinned = values.get("base")
    pin = None if pinned is None else config.from_mapping(BasePin, pinned, source="its base")
    invitation = config.from_mapping(Invitation, {**values, "base": pin}, source="it")
    if invitation.format != _FORMAT:
        raise ConfigError(f"its format is {invitation.format}, this moehub reads {_FORMAT}")
    return invitation
