"""A stand-in for the SuperLink, behind TLS on loopback: it remembers what reached it."""

import base64
import contextlib
import datetime as dt
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from moehub.federation.deploy.certificates import Certificates

OPERATORS = "/v1/control/start-run"
TRICKS = (
    OPERATORS,
    "/v1/control/register-node",
    "/v1/runtime/acquire-task",
    "/",
    "/docs",
    "/openapi.json",
    "/v1/fleet",
    "/v1/fleet/",
    "//v1/control/start-run",
    "/v1//control/start-run",
    "/v1/fleet/../control/start-run",
    "/v1/fleet/./pull-messages",
    "/v1/fleet/%2e%2e/control/start-run",
    "/v1/fleet/%2E%2e/control/start-run",
    "/v1/fleet/..%2fcontrol%2fstart-run",
    "/v1/fleet%2fpull-messages",
    "/v1/fleet/..%5ccontrol%5cstart-run",
    "/v1/fleet/..\\control\\start-run",
    "/v1/fleet/%252e%252e/control/start-run",
    "/v1/fleet/..;/control/start-run",
    "/v1/fleet/pull%2Dmessages",
    "/v1/fleet//pull-messages",
    "/v1/fleet/pull-messages/",
    "/v1/fleet/pull-messages/../../control/start-run",
    "/v1/fleet/pull-messages?to=/v1/control/start-run",
    "/v1/fleet/pull-messages#/v1/control/start-run",
    "/v1/fleet/pull-messages%00",
    "/v1/fleet/pull-messages%0d%0aX:%20y",
    "/V1/FLEET/pull-messages",
    "/v1/Fleet/pull-messages",
    "/v1/fleet/Pull-Messages",
    "/health/../v1/control/start-run",
    "/health/",
    "/health?x",
    "https://127.0.0.1/v1/control/start-run",
    "https://127.0.0.1/v1/fleet/../control/start-run",
    "v1/fleet/pull-messages",
    "*",
    "/v1/fleet/pull-messages\t",
    "/v1/fleet/pull-messages\u00a0",
)
"""Paths that a door for nodes alone keeps shut, whoever asks."""


@dataclass
class Seen:
    """One request that reached it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


@dataclass
class Upstream:
    port: int
    seen: list[Seen] = field(default_factory=list)
    go: threading.Event = field(default_factory=threading.Event)
    """Lets the second half of a slow answer out."""


class _Server(ThreadingHTTPServer):
    def __init__(self, tls: Certificates) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.found = Upstream(self.server_address[1])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certificate, tls.key)
        self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: Any) -> None:
        """Say nothing: clients break off on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        seen = Seen("POST", self.path, {name.lower(): value for name, value in self.headers.items()})
        self.server.found.seen.append(seen)
        for piece in self._pieces():
            seen.body += piece
        if self.path.endswith("/pull-object"):
            self._slowly()
        else:
            self._answer(b"answer to " + bytes(seen.body[:20]))

    def do_GET(self) -> None:
        self.server.found.seen.append(Seen(self.command, self.path, {}))
        self._answer(b"")

    do_HEAD = do_GET  # noqa: N815 (the library's name)

    def _pieces(self) -> Iterator[bytes]:
        if "Content-Length" in self.headers:
            left = int(self.headers["Content-Length"])
            while left and (piece := self.rfile.read1(min(left, 65536))):
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline() or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        for name, value in (("Content-Type", "application/protobuf"), ("Set-Cookie", "a=b"), ("flwr-thing", "yes")):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _slowly(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "200000")
        self.end_headers()
        self.wfile.write(b"1" * 100_000)
        self.server.found.go.wait(20)
        self.wfile.write(b"2" * 100_000)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def upstream(tls: Certificates) -> Iterator[Upstream]:
    """Serve on a free port; /v1/fleet/pull-object is answered in two halves."""
    server = _Server(tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.found
    finally:
        server.found.go.set()
        server.shutdown()
        server.server_close()
        thread.join()


def signed(key: Path, *, ago: float = 0, by: Path | None = None) -> dict[str, str]:
    """Return the headers of a node with this key; `by` another key, where it lies."""
    private = serialization.load_ssh_private_key(key.read_bytes(), None)
    signing = private if by is None else serialization.load_ssh_private_key(by.read_bytes(), None)
    assert isinstance(signing, ec.EllipticCurvePrivateKey)
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    at = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=ago)).isoformat()
    return {
        "flwr-public-key": base64.b64encode(public).decode(),
        "flwr-timestamp": at,
        "flwr-signature": base64.b64encode(signing.sign(at.encode(), ec.ECDSA(hashes.SHA256()))).decode(),
    }
