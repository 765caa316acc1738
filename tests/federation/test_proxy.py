"""The nginx configuration of docs/federation.md, in a real nginx where one is installed."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from moehub.federation.deploy import certificates, keys, services
from tests.federation.test_gateway import Door
from tests.federation.upstream import TRICKS, signed, upstream

CHECKOUT = Path(__file__).parents[2]
NGINX = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
PASSED = re.compile(r"/v1/fleet/[a-z]+(-[a-z]+)*")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The configuration as it stands in the docs, only its places and ports changed."""
    folder = tmp_path_factory.mktemp("nginx")
    inner = certificates.own(folder / "inner", ["localhost"])
    outer = certificates.own(folder / "outer", ["localhost"])
    keys.ensure(folder / "key")
    port = services.free_port()
    with upstream(inner) as behind:
        changes = {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "server 127.0.0.1:8443": f"server 127.0.0.1:{behind.port}",
            "/etc/letsencrypt/live/fed.example.org/fullchain.pem": str(outer.certificate),
            "/etc/letsencrypt/live/fed.example.org/privkey.pem": str(outer.key),
            "/var/lib/moehub/tls/ca.crt": str(inner.authority),
        }
        site = (CHECKOUT / "docs" / "federation" / "nginx.conf").read_text()
        for before, after in changes.items():
            assert before in site
            site = site.replace(before, after)
        with nginx(folder, site, port):
            yield Door(port, outer, behind, folder / "key", folder)


@contextlib.contextmanager
def nginx(folder: Path, site: str, port: int) -> Iterator[None]:
    places = "".join(
        f"{name}_temp_path {folder / name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = (
        f"daemon off; master_process off; pid {folder / 'pid'}; error_log {folder / 'error.log'};\n"
        f"events {{ }}\nhttp {{\naccess_log off;\n{places}{site}\n}}\n"
    )
    (folder / "nginx.conf").write_text(whole)
    command = subprocess.Popen([NGINX or "", "-p", str(folder), "-c", str(folder / "nginx.conf")])
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert command.poll() is None, (folder / "error.log").read_text()
            time.sleep(0.05)
        yield
    finally:
        command.terminate()
        command.wait(20)


@pytest.fixture
def door(proxied: Door) -> Door:
    proxied.behind.seen.clear()
    return proxied


def test_a_nodes_request_goes_through(door: Door) -> None:
    """With its signature, which the SuperLink checks."""
    assert door.post("/v1/fleet/pull-messages", b"hello") == (200, b"answer to hello")
    (seen,) = door.behind.seen
    assert (seen.path, bytes(seen.body)) == ("/v1/fleet/pull-messages", b"hello")
    assert seen.headers.keys() >= {"flwr-public-key", "flwr-signature", "flwr-timestamp"}


def test_health_is_served(door: Door) -> None:
    """By which a node knows that it is at the right place."""
    assert door.raw(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n") == 200


@pytest.mark.parametrize("path", TRICKS)
def test_every_other_path_is_refused(door: Door, path: str) -> None:
    """However it is written: what reaches the SuperLink is a node's route, or nothing."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in signed(door.key).items())
    status = door.raw(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n{headers}\r\n".encode())
    assert status in (400, 403, 405)
    assert door.behind.seen == []


def test_nodes_only_post(door: Door) -> None:
    """No other verb gets through."""
    assert door.raw(b"GET /v1/fleet/pull-messages HTTP/1.1\r\nHost: a\r\n\r\n") == 403
    assert door.behind.seen == []


def test_a_body_that_is_too_large_is_refused(door: Door) -> None:
    """Before it is read."""
    request = b"POST /v1/fleet/push-object HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n"
    assert door.raw(request) == 413
    assert door.behind.seen == []


def test_the_superlink_is_known_by_its_certificate(tmp_path: Path) -> None:
    """Whoever took its port on this machine gets nothing of the nodes'."""
    site = (CHECKOUT / "docs" / "federation" / "nginx.conf").read_text()
    locations = re.findall(r"location [^{]+\{(?:[^{}]|\{[^{}]*\})*proxy_pass(?:[^{}]|\{[^{}]*\})*\}", site)
    assert len(locations) == 2
    assert all("proxy_ssl_verify on;" in each and "proxy_ssl_trusted_certificate " in each for each in locations)
    wrong, port = certificates.own(tmp_path / "wrong", ["localhost"]), services.free_port()
    keys.ensure(tmp_path / "key")
    with upstream(wrong) as behind:
        other = certificates.own(tmp_path / "other", ["localhost"])
        site = site.replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl")
        site = site.replace("server 127.0.0.1:8443", f"server 127.0.0.1:{behind.port}")
        site = re.sub(r"/etc/letsencrypt\S+fullchain\.pem", str(wrong.certificate), site)
        site = re.sub(r"/etc/letsencrypt\S+privkey\.pem", str(wrong.key), site)
        site = site.replace("/var/lib/moehub/tls/ca.crt", str(other.authority))
        with nginx(tmp_path, site, port):
            assert Door(port, wrong, behind, tmp_path / "key", tmp_path).post("/v1/fleet/pull-messages")[0] == 502
        assert behind.seen == []
