"""Whether a server can be reached, and is the right one: asked before anything is started, answered in one sentence."""

import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path

from moehub.errors import FederationError
from moehub.federation.deploy.address import Address

_SECONDS = 10.0


@dataclass(frozen=True)
class Way:
    """How a node reaches its server."""

    address: Address
    authority: Path | None = None
    """What the server is known by; None: what this machine trusts anyway."""
    insecure: bool = False
    """Whether there is no TLS."""


def reach(way: Way) -> str:
    """Return nothing where the server answers, and why not where it does not now but may later.

    Raises:
        FederationError: something else answers there, or the server does not show the certificate that it should.
    """
    try:
        status = _asked(way)
    except ssl.SSLCertVerificationError as error:
        raise FederationError(_unknown(way, error.verify_message)) from error
    except ssl.SSLError as error:
        raise FederationError(
            f"{way.address} does not speak TLS ({error.reason or error}): check the address, or add --insecure where "
            "the server was started with it, on this machine"
        ) from error
    except (ConnectionResetError, http.client.BadStatusLine) as error:
        if way.insecure:
            raise FederationError(
                f"{way.address} ended the connection ({error or 'no answer'}): it may speak TLS, leave out --insecure"
            ) from error
        return f"{way.address} ended the connection"
    except (OSError, http.client.HTTPException) as error:
        return f"{way.address} does not answer ({getattr(error, 'strerror', None) or error or 'no answer in time'})"
    if status in (502, 503, 504):
        return f"{way.address} is not ready (HTTP {status})"
    if status != http.HTTPStatus.OK:
        raise FederationError(
            f"{way.address} is no federation server (HTTP {status} to GET /health): check --superlink"
        )
    return ""


def context(authority: Path | None) -> ssl.SSLContext:
    """Return what verifies a server's certificate.

    Raises:
        FederationError: the authority's file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=str(authority) if authority is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise FederationError(
            f"{authority} holds no certificate ({error}): name the file, or the invitation, that the server's operator "
            "gave you"
        ) from error


def _asked(way: Way) -> int:
    host, port = way.address.host, way.address.port
    wire = (
        http.client.HTTPConnection(host, port, timeout=_SECONDS)
        if way.insecure
        else http.client.HTTPSConnection(host, port, timeout=_SECONDS, context=context(way.authority))
    )
    try:
        wire.request("GET", "/health")
        return wire.getresponse().status
    finally:
        wire.close()


def _unknown(way: Way, said: str) -> str:
    if way.authority is None:
        cure = "name the file that the server's operator gave you with --invitation or --root-certificates"
    else:
        cure = "ask the server's operator for a new invitation, and check --superlink"
    return f"{way.address} shows a certificate that cannot be verified ({said}): {cure}"
