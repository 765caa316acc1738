"""What a hub is started with."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from moehub.errors import ConfigError

LOCALHOST = "localhost"


@dataclass(frozen=True)
class ServerSettings:
    """What a hub is started with.

    Raises:
        ConfigError: they contradict themselves, or would let strangers write.
    """

    root: Path
    """The hub's folder."""
    host: str = "127.0.0.1"
    """The address to listen at."""
    port: int = 8731
    """The port to listen at; 0: any that is free."""
    open: bool = False
    """Whether everybody on this machine may do everything, without a token."""
    url: str | None = None
    """The address that others know the hub by, where something stands in front of it; None: as they asked for it."""
    quota: int | None = None
    """Bytes that one namespace may hold; None: no limit."""
    largest_file: int = 100 << 30
    """Bytes of the largest file that is taken."""
    pickles: bool = False
    """Whether files may be pickles by their names."""
    gate: bool = True
    """Whether experts have to pass the admission gate."""
    bases: tuple[str, ...] = ()
    """Bases that the gate may load, as ids or folders: with them it measures what an expert does."""
    null: Path | None = None
    """Generic text: what the gate measures experts on that no expert should answer; needs a base."""

    def __post_init__(self) -> None:
        if self.open and not is_loopback(self.host):
            raise ConfigError(
                f"--open with --host {self.host} would let the whole network write: leave --open out, and make tokens "
                "with `moehub hub token create`"
            )
        if not 0 <= self.port < 1 << 16:
            raise ConfigError(f"--port is {self.port}, expected 0 to 65535")
        for option, value in (("--quota", self.quota), ("the largest file", self.largest_file)):
            if value is not None and value <= 0:
                raise ConfigError(f"{option} is {value}, expected a number of bytes above 0, as in 500G")
        if self.url is not None:
            object.__setattr__(self, "url", _origin(self.url))


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches `host`, a name or an address without brackets."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == LOCALHOST


def _origin(url: str) -> str:
    """Return scheme, name and port of an address.

    Raises:
        ConfigError: it has more than these, or less.
    """
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and parts.hostname and (parts.port or 1)
    except ValueError:
        whole = False
    if not whole or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(
            f"--url is {url!r}, expected the scheme and the name that others use, as in https://hub.example.org"
        )
    return f"{parts.scheme}://{parts.netloc}"
