import contextlib
import dataclasses
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from moehub.errors import FederationError
from moehub.federation.deploy import certificates, services
from moehub.federation.deploy.address import Address
from moehub.federation.deploy.reach import Way, reach
from tests.federation.upstream import upstream


def test_a_server_that_answers_is_reached(tmp_path: Path) -> None:
    """By TLS and its authority."""
    tls = certificates.own(tmp_path, ["localhost"])
    with upstream(tls) as server:
        assert reach(Way(Address("127.0.0.1", server.port), tls.authority)) == ""


def test_a_server_that_is_away_is_waited_for() -> None:
    """It may come."""
    port = services.free_port()
    assert reach(Way(Address("127.0.0.1", port), insecure=True)) == (
        f"127.0.0.1:{port} does not answer (Connection refused)"
    )


def test_a_server_of_another_authority_is_refused(tmp_path: Path) -> None:
    """Waiting would not help."""
    tls = certificates.own(tmp_path / "its", ["localhost"])
    other = certificates.own(tmp_path / "other", ["localhost"])
    with upstream(tls) as server:
        way = Way(Address("127.0.0.1", server.port), other.authority)
        with pytest.raises(FederationError, match=r"cannot be verified .*: ask the server's operator for a new"):
            reach(way)
        with pytest.raises(FederationError, match=r"cannot be verified .*: name the file .* --root-certificates"):
            reach(dataclasses.replace(way, authority=None))


def test_a_server_of_another_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate holds for its names alone."""
    monkeypatch.setattr(certificates, "ALWAYS", ())
    tls = certificates.own(tmp_path, ["fed.example.org"])
    with upstream(tls) as server, pytest.raises(FederationError, match="cannot be verified"):
        reach(Way(Address("127.0.0.1", server.port), tls.authority))


@contextlib.contextmanager
def answering(said: bytes) -> Iterator[Address]:
    """Answer one connection with these bytes, whatever it says."""

    def answer() -> None:
        with contextlib.suppress(OSError):
            wire, _ = listening.accept()
            with wire:
                wire.recv(4096)
                wire.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer)
        thread.start()
        yield Address("127.0.0.1", listening.getsockname()[1])
        thread.join(5)


def test_what_speaks_no_tls_is_refused(tmp_path: Path) -> None:
    """Or is a server that was started with --insecure."""
    authority = certificates.own(tmp_path, ["localhost"]).authority
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    with answering(answer) as address, pytest.raises(FederationError, match="does not speak TLS"):
        reach(Way(address, authority))


def test_what_ends_a_plain_connection_may_speak_tls() -> None:
    """Which --insecure leaves out."""
    with answering(b"") as address, pytest.raises(FederationError, match="it may speak TLS, leave out --insecure"):
        reach(Way(address, insecure=True))


def test_what_is_another_server_is_refused() -> None:
    """Somebody's web site is on that port."""
    answer, said = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", r"is no federation server \(HTTP 404 to GET"
    with answering(answer) as address, pytest.raises(FederationError, match=said):
        reach(Way(address, insecure=True))


def test_a_server_that_is_starting_is_waited_for() -> None:
    """Its gateway is up before the SuperLink is."""
    with answering(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n") as address:
        assert reach(Way(address, insecure=True)) == f"{address} is not ready (HTTP 502)"
