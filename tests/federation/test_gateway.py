import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from moehub.federation.deploy import certificates, keys, services
from moehub.federation.deploy.certificates import Certificates
from moehub.federation.deploy.gateway import LARGEST
from tests.federation.upstream import OPERATORS, TRICKS, Upstream, signed, upstream

CHECKOUT = Path(__file__).parents[2]


@dataclass
class Door:
    """A gateway that runs, and what is behind it."""

    port: int
    tls: Certificates
    behind: Upstream
    key: Path
    """Of a node that was registered."""
    registered: Path
    """The folder of the registered keys."""

    def connect(self) -> ssl.SSLSocket:
        context = ssl.create_default_context(cafile=self.tls.authority)
        return context.wrap_socket(socket.create_connection(("127.0.0.1", self.port), 10), server_hostname="localhost")

    def connection(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=self.tls.authority)
        return http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=20)

    def post(self, path: str, body: object = b"", **headers: str) -> tuple[int, bytes]:
        """Post as the registered node; `headers` come in the place of its own."""
        with contextlib.closing(self.connection()) as wire:
            wire.request("POST", path, body, {**signed(self.key), **headers})  # type: ignore[arg-type]
            answer = wire.getresponse()
            return answer.status, answer.read()

    def raw(self, text: bytes) -> int:
        """Send bytes as they are and return the status."""
        with contextlib.closing(self.connect()) as wire:
            wire.sendall(text)
            return int(wire.recv(65536).split(b" ", 2)[1])


@contextlib.contextmanager
def gateway(port: int, behind: int, outer: Certificates, authority: Path, registered: Path) -> Iterator[None]:
    """Run the gateway as the server does."""
    options = {
        "host": "127.0.0.1",
        "port": port,
        "upstream": f"https://127.0.0.1:{behind}",
        "authority": authority,
        "certificate": outer.certificate,
        "key": outer.key,
        "keys": registered,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = subprocess.Popen([sys.executable, "-m", "moehub.federation.deploy.gateway", *words], cwd=CHECKOUT)
    try:
        for _ in range(400):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield
    finally:
        command.terminate()
        command.wait(20)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("gateway")
    tls = certificates.own(folder / "tls", ["localhost"])
    keys.ensure(folder / "key")
    (folder / "registered").mkdir()
    shutil.copy(folder / "key.pub", folder / "registered" / "1.pub")
    port = services.free_port()
    with upstream(tls) as behind, gateway(port, behind.port, tls, tls.authority, folder / "registered"):
        yield Door(port, tls, behind, folder / "key", folder / "registered")


@pytest.fixture
def door(running: Door) -> Door:
    running.behind.seen.clear()
    running.behind.go.clear()
    return running


def test_a_nodes_request_goes_through_and_its_answer_comes_back(door: Door) -> None:
    """Body, status and what Flower says in headers; nothing else of either side."""
    with contextlib.closing(door.connection()) as wire:
        headers = {**signed(door.key), "Content-Type": "application/protobuf", "Cookie": "c", "X-Forwarded-For": "9"}
        wire.request("POST", "/v1/fleet/pull-messages", b"hello", headers)
        answer = wire.getresponse()
        assert (answer.status, answer.read()) == (200, b"answer to hello")
        assert (answer.headers["flwr-thing"], answer.headers["content-type"]) == ("yes", "application/protobuf")
        assert answer.headers["set-cookie"] is None
    (seen,) = door.behind.seen
    assert (seen.path, bytes(seen.body)) == ("/v1/fleet/pull-messages", b"hello")
    assert seen.headers.keys() >= {"flwr-public-key", "flwr-signature", "flwr-timestamp", "content-type"}
    assert seen.headers.keys() & {"cookie", "x-forwarded-for"} == set()
    assert seen.headers["host"] == f"127.0.0.1:{door.behind.port}"


def test_one_connection_serves_many_requests(door: Door) -> None:
    """A node asks every few seconds; shaking hands each time would cost more than the rest."""
    with contextlib.closing(door.connection()) as wire:
        for number in range(3):
            wire.request("POST", "/v1/fleet/pull-messages", b"%d" % number, signed(door.key))
            assert wire.getresponse().read() == b"answer to %d" % number


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_health_is_served_to_everybody(door: Door, method: str) -> None:
    """It says nothing but that the server runs."""
    assert door.raw(f"{method} /health HTTP/1.1\r\nHost: a\r\n\r\n".encode()) == 200


@pytest.mark.parametrize("path", [*TRICKS, "https://127.0.0.1/v1/fleet/pull-messages"])
def test_every_other_path_is_refused(door: Door, path: str) -> None:
    """However it is written, even by a registered node; nothing of it gets through."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed(door.key).items())
    request = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{headers}\r\n"
    assert door.raw(request.encode()) in (400, 403)
    assert door.behind.seen == []


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "post"])
def test_nodes_only_post(door: Door, method: str) -> None:
    """No other verb has a meaning there."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed(door.key).items())
    assert door.raw(f"{method} /v1/fleet/pull-messages HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode()) == 403
    assert door.behind.seen == []


def test_health_is_only_read(door: Door) -> None:
    """And is no way in for anything else."""
    assert door.post("/health")[0] == 403


def test_a_request_with_two_lengths_is_refused(door: Door) -> None:
    """Two readers would disagree where the next one begins: the way to smuggle one in."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed(door.key).items())
    inner = f"POST {OPERATORS} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    request = (
        f"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: a\r\n{headers}"
        f"Content-Length: {len(inner) + 5}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
    )
    assert door.raw(request.encode()) == 400
    time.sleep(0.2)
    assert door.behind.seen == []


def test_an_upgrade_is_refused(door: Door) -> None:
    """A tunnel would carry anything."""
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA==\r\n"
    assert door.raw(f"GET /v1/fleet/pull-messages HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n".encode()) == 403


@pytest.mark.parametrize(("route", "status", "code"), [("activate-node", 400, 2004), ("pull-messages", 401, None)])
def test_a_key_that_was_not_registered_is_refused(
    door: Door, tmp_path: Path, route: str, status: int, code: int | None
) -> None:
    """In the words that make Flower's SuperNode end with them, and without troubling the SuperLink."""
    keys.ensure(tmp_path / "stranger")
    found, said = door.post(f"/v1/fleet/{route}", **signed(tmp_path / "stranger"))
    assert found == status
    assert json.loads(said) == {
        "detail": "this key is not registered",
        **({"code": code} if code is not None else {}),
    }
    assert door.behind.seen == []


def test_a_key_without_its_private_half_is_refused(door: Door, tmp_path: Path) -> None:
    """Everybody may know the public one."""
    keys.ensure(tmp_path / "stranger")
    assert door.post("/v1/fleet/pull-messages", **signed(door.key, by=tmp_path / "stranger"))[0] == 401
    assert door.post("/v1/fleet/pull-messages", **{"flwr-signature": "?"})[0] == 401
    assert door.behind.seen == []


def test_a_signature_of_another_time_is_refused(door: Door) -> None:
    """One that somebody kept opens nothing; Flower's own limits hold."""
    assert door.post("/v1/fleet/pull-messages", **signed(door.key, ago=250))[0] == 200
    assert door.post("/v1/fleet/pull-messages", **signed(door.key, ago=310))[0] == 401
    assert door.post("/v1/fleet/pull-messages", **signed(door.key, ago=-60))[0] == 401


def test_a_request_without_a_signature_is_refused(door: Door) -> None:
    """Curl is no node."""
    assert door.raw(b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n") == 401


def test_keys_come_and_go_while_it_runs(door: Door, tmp_path: Path) -> None:
    """Nobody restarts a server for a newcomer, or to shut somebody out."""
    keys.ensure(tmp_path / "new")
    assert door.post("/v1/fleet/pull-messages", **signed(tmp_path / "new"))[0] == 401
    shutil.copy(tmp_path / "new.pub", door.registered / "2.pub")
    assert door.post("/v1/fleet/pull-messages", **signed(tmp_path / "new"))[0] == 200
    (door.registered / "2.pub").unlink()
    assert door.post("/v1/fleet/pull-messages", **signed(tmp_path / "new"))[0] == 401


def test_a_strangers_body_is_not_waited_for(door: Door) -> None:
    """It is refused by its headers, so that it costs nothing."""
    request = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n"
    began = time.monotonic()
    assert door.raw(request) == 401
    assert time.monotonic() - began < 5


def test_a_body_passes_through_as_it_comes(door: Door) -> None:
    """Its first half is behind the gateway before its second half was sent."""
    half = 4 << 20
    with contextlib.closing(door.connection()) as wire:
        wire.putrequest("POST", "/v1/fleet/push-object")
        for name, value in {**signed(door.key), "Content-Length": str(2 * half)}.items():
            wire.putheader(name, value)
        wire.endheaders()
        wire.send(b"1" * half)
        until = time.monotonic() + 10
        while not (door.behind.seen and len(door.behind.seen[0].body) > half // 2):
            assert time.monotonic() < until, "nothing came through before the end"
            time.sleep(0.02)
        wire.send(b"2" * half)
        assert wire.getresponse().status == 200
    assert bytes(door.behind.seen[0].body) == b"1" * half + b"2" * half


def test_an_answer_passes_through_as_it_comes(door: Door) -> None:
    """Its first half is with the node before its second half was made."""
    with contextlib.closing(door.connection()) as wire:
        wire.request("POST", "/v1/fleet/pull-object", b"", signed(door.key))
        answer = wire.getresponse()
        assert answer.read(100_000) == b"1" * 100_000
        door.behind.go.set()
        assert answer.read() == b"2" * 100_000


def test_a_body_that_says_that_it_is_too_large_is_refused(door: Door) -> None:
    """Before a byte of it was sent."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed(door.key).items())
    request = f"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {LARGEST + 1}\r\n\r\n"
    assert door.raw(request.encode()) == 413
    assert door.behind.seen == []


def test_a_body_that_turns_out_too_large_is_refused(door: Door) -> None:
    """Where it does not say so, as soon as it is."""

    def pieces() -> Iterator[bytes]:
        for _ in range(LARGEST // (1 << 20) + 2):
            yield b"x" * (1 << 20)

    with contextlib.suppress(ConnectionError, ssl.SSLError):  # it may be shut while we are still sending
        assert door.post("/v1/fleet/push-object", pieces())[0] == 413
    assert sum(len(each.body) for each in door.behind.seen) <= LARGEST


def test_the_superlink_is_known_by_its_certificate(door: Door, tmp_path: Path) -> None:
    """Whoever took its port on this machine gets nothing of the nodes'."""
    other = certificates.own(tmp_path / "other", ["localhost"])
    port = services.free_port()
    with gateway(port, door.behind.port, door.tls, other.authority, door.registered):
        wrong = Door(port, door.tls, door.behind, door.key, door.registered)
        status, said = wrong.post("/v1/fleet/pull-messages", b"secret")
    assert (status, json.loads(said)["detail"]) == (502, "the SuperLink does not answer")
    assert door.behind.seen == []


def test_a_superlink_that_is_away_is_tried_again_by_nodes(door: Door) -> None:
    """502 is what Flower's nodes wait at."""
    port = services.free_port()
    with gateway(port, services.free_port(), door.tls, door.tls.authority, door.registered):
        away = Door(port, door.tls, door.behind, door.key, door.registered)
        assert away.post("/v1/fleet/pull-messages")[0] == 502


def test_it_speaks_tls_alone(door: Door) -> None:
    """Nothing is served to a client that does not encrypt."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", door.port), 5)) as wire:
        wire.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert not wire.recv(100).startswith(b"HTTP")
