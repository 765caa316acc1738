"""The nginx configuration and the service of docs/hub.md: the first in a real nginx where one is installed."""

import configparser
import os
import shlex
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import httpx2
import pytest

from moehub.cli.hub.serve import command as serve_command
from moehub.federation.deploy import certificates, services
from tests.federation.test_proxy import NGINX, nginx
from tests.hubserver import wire
from tests.hubserver.conftest import Served, served
from tests.hubserver.wire import REPO, batch, committed, create, file, large

DOCS = Path(__file__).parents[2] / "docs" / "hub"


@dataclass(frozen=True)
class Proxied(Served):
    """A hub behind nginx."""

    authority: str = ""
    """The certificate that vouches for it."""

    def ask(self, method: str, path: str, *, token: str | None = None, **more: Any) -> httpx2.Response:
        """Send one request through nginx."""
        headers = {**({"Authorization": f"Bearer {token}"} if token else {}), **more.pop("headers", {})}
        verify = ssl.create_default_context(cafile=self.authority)
        with httpx2.Client(trust_env=False, timeout=30, verify=verify) as client:
            return client.request(method, self.url + path, headers=headers, **more)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    """The configuration as it stands in the docs, only its places and ports changed."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    outer = certificates.own(folder / "outer", ["localhost"])
    port = services.free_port()
    with served(folder / "hub", url=f"https://localhost:{port}") as hub:
        changes = {
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "server 127.0.0.1:8731": f"server {hub.url.removeprefix('http://')}",
            "/etc/letsencrypt/live/hub.example.org/fullchain.pem": str(outer.certificate),
            "/etc/letsencrypt/live/hub.example.org/privkey.pem": str(outer.key),
        }
        site = (DOCS / "nginx.conf").read_text()
        for before, after in changes.items():
            assert before in site
            site = site.replace(before, after)
        with nginx(folder, site, port):
            found = Proxied(f"https://localhost:{port}", hub.store, hub.ada, hub.reader, hub.eve, str(outer.authority))
            create(found)
            yield found


def test_large_files_go_through(proxied: Proxied) -> None:
    """By the address that the hub is known by, past nginx's own limit; ranges come back."""
    content = os.urandom(5 << 20)
    href = batch(proxied, content)[0]["actions"]["upload"]["href"]
    assert href.startswith(proxied.url)
    assert proxied.ask("PUT", href.removeprefix(proxied.url), content=content).status_code == 200
    oid = committed(proxied, large("a b.safetensors", content))
    path = f"/{REPO}/resolve/{oid}/a%20b.safetensors"
    assert proxied.ask("GET", path).content == content
    assert proxied.ask("GET", path, headers={"Range": "bytes=5-9"}).content == content[5:10]
    assert list((proxied.store.root / "incoming").iterdir()) == []


def test_a_slash_in_a_branch_stays_one(proxied: Proxied) -> None:
    """Nginx passes the address on as it came."""
    assert proxied.ask("POST", f"/api/models/{REPO}/branch/exp%2F1", token=proxied.ada).status_code == 200
    oid = committed(proxied, file("new.txt"), branch="exp%2F1")
    answer = proxied.ask("GET", f"/{REPO}/resolve/exp%2F1/new.txt")
    assert answer.headers["location"] == f"/{REPO}/resolve/{oid}/new.txt"


def test_refusals_go_through(proxied: Proxied) -> None:
    """With what the client reads of them."""
    answer = proxied.ask("GET", "/api/models/acme/none")
    assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")
    assert proxied.ask("GET", "/api/models", token="hf_wrong").status_code == 401
    assert wire.create(proxied, "eve/x", token=proxied.reader).status_code == 403


def test_the_service_starts_what_there_is() -> None:
    """Its command is one of moehub's, with options that exist."""
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]  # keys keep their case
    unit.read(DOCS / "moehub-hub.service")
    program, *words = shlex.split(unit["Service"]["ExecStart"])
    assert (Path(program).name, words[:2]) == ("moehub", ["hub", "serve"])
    with click.Context(serve_command) as context:
        found = serve_command.parse_args(context, words[2:])
    assert found == []
    assert context.params["url"] == "https://hub.example.org"
