"""What keeps other people's web pages from using a hub through a browser that can reach it.

A page may send requests to any address; its browser says in `Origin` where the page is from. And a page may give its
own name the hub's address (DNS rebinding); then the browser asks for the hub by the page's name.
"""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.requests import Request

from moehub.hubserver.refusals import RefusedError
from moehub.hubserver.settings import LOCALHOST, ServerSettings, is_loopback

_HARMLESS = ("GET", "HEAD", "OPTIONS")


def check(request: Request, settings: ServerSettings) -> None:
    """Refuse what a stranger's web page may have sent.

    Raises:
        RefusedError: 421 where the hub is asked for by a name that is not its own, 403 for a change that another site
            asks for.
    """
    host = request.headers.get("host", "")
    if not _is_ours(_name(host), settings):
        raise RefusedError(421, f"this hub does not go by the name {host!r:.80}: start it with --url to give it one")
    origin = request.headers.get("origin")
    if origin is None or request.method in _HARMLESS:
        return
    place = urlsplit(origin).netloc if origin.isascii() else ""
    if place not in (host, urlsplit(settings.url or "").netloc) or not place:
        raise RefusedError(403, "a web page of another site sent this: only the hub's own pages may change something")


def address(request: Request, settings: ServerSettings) -> str:
    """Return the hub's address as whoever asks knows it, without a slash at the end."""
    return settings.url or f"http://{request.headers['host']}"


def _is_ours(name: str | None, settings: ServerSettings) -> bool:
    if name is None:
        return False
    if settings.url is not None and name == urlsplit(settings.url).hostname:
        return True
    if settings.open:
        return is_loopback(name)
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name in (LOCALHOST, settings.host.lower(), socket.gethostname().lower())
    return True  # no page can give its own name to a hub that is asked for by its address


def _name(host: str) -> str | None:
    """Return the name or address in a `Host` header, without port and brackets; None if there is none."""
    try:
        parts = urlsplit(f"//{host}")
        parts.port  # noqa: B018 (it raises where it is none)
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None
