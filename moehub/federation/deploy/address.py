"""Where a server is: a host and a port, as people write them."""

import ipaddress
import re
from dataclasses import dataclass

from moehub.errors import ConfigError

_HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*\.?")
_EVERYWHERE = frozenset({"0.0.0.0", "::"})  # noqa: S104 (compared with, not bound to)


@dataclass(frozen=True)
class Address:
    """A host, by name or number, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it. A name other than localhost may point anywhere."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def everywhere(self) -> bool:
        """Whether it stands for every address of the machine, and so is none that a node could go to."""
        return self.host in _EVERYWHERE


def parse(text: str, *, port: int | None = None) -> Address:
    """Return the address in HOST:PORT, or in HOST where `port` is what is meant then.

    Raises:
        ConfigError: it is none.
    """
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::(\d{1,5}))?", text.strip())
    number = None if found is None else int(found[3]) if found[3] else port
    if found is None or number is None or not 1 <= number <= 65535 or not _known(found[1] or found[2]):
        wanted = "HOST:PORT" if port is None else "HOST or HOST:PORT"
        raise ConfigError(f"{text!r} is no address, expected {wanted} without https://, as in fed.example.org:8443")
    return Address(found[1] or found[2], number)


def _known(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return _HOST.fullmatch(host) is not None
    return True
