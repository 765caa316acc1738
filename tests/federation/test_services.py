import http.server
import os
import socket
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

from moehub.errors import FederationError
from moehub.federation.deploy import services

TLS = (Path("ca.crt"), Path("server.crt"), Path("server.key"))


def test_flower_is_quiet_private_and_installs_nothing(tmp_path: Path) -> None:
    """Whatever the person's own environment says."""
    found = services.environment(tmp_path, first=tmp_path / "doors", ONE="1")
    assert {name: found[name] for name in found if name.startswith(("FLWR", "ONE"))} == {
        "FLWR_HOME": str(tmp_path),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
        "ONE": "1",
    }
    assert found["PATH"].split(os.pathsep)[:2] == [str(tmp_path / "doors"), str(Path(sys.executable).parent)]


@pytest.mark.parametrize("name", ["NO_PROXY", "no_proxy"])
def test_loopback_needs_no_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A proxy for the world outside would be asked for a SuperLink of this machine."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv(name, "example.org")
    found = services.environment(tmp_path)
    assert found["NO_PROXY"] == found["no_proxy"] == "127.0.0.1,localhost,example.org"


def test_flowers_programs_can_import_this_moehub(tmp_path: Path) -> None:
    """Installed or not, and from any folder; a file of the same name there is not taken for it."""
    (tmp_path / "moehub.py").write_text("raise SystemExit(3)")
    command = [sys.executable, "-P", "-c", "import moehub.federation.deploy.guard"]
    done = subprocess.run(command, env=services.environment(tmp_path), cwd=tmp_path, check=False)
    assert done.returncode == 0


def test_ports_are_free_different_and_never_an_outgoing_connections() -> None:
    """So a SuperLink that is started again finds its own free."""
    ports = services.free_ports(50)
    assert len(set(ports)) == 50
    assert all(20_000 <= port < 32_000 for port in ports)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", ports[0]))


def test_too_few_ports_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than waited for."""
    monkeypatch.setattr(services, "_HIGHEST", services._LOWEST + 3)
    with pytest.raises(FederationError, match="4 ports between 20000 and 20003 are not free"):
        services.free_ports(4)


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_only_what_answers_is_healthy() -> None:
    """A closed port and a service that speaks no HTTP are not."""
    assert not services.healthy("127.0.0.1", services.free_port())
    with http.server.HTTPServer(("127.0.0.1", 0), _Answer) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        assert services.healthy("127.0.0.1", server.server_port)
        server.shutdown()
        serving.join()


def test_a_superlink_speaks_tls_unless_it_is_told_not_to(tmp_path: Path) -> None:
    """Never half of it; a contributor's key must be known where nodes are authenticated."""
    place = {"host": "0.0.0.0", "port": 8000, "database": tmp_path / "state.db"}  # noqa: S104 (a command line)
    plain = services.superlink({}, **place).command  # type: ignore[arg-type]
    secure = services.superlink({}, **place, tls=TLS, authenticated=True).command  # type: ignore[arg-type]
    assert "--insecure" in plain
    assert "--insecure" not in secure
    assert secure[-7:] == (
        *("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key"),
        "--enable-supernode-auth",
    )
    assert {"--isolation", "process", "--database", "--disable-runtime-dependency-installation"} <= set(plain)


def test_a_supernode_trusts_one_authority_and_shows_its_key(tmp_path: Path) -> None:
    """Its own port stays on loopback."""
    found = services.supernode(
        *({},), name="n", superlink="a:1", port=2, configuration=tmp_path / "n.toml", authority=TLS[0], key=Path("k")
    ).command  # fmt: skip
    assert found[1:] == (
        *("--root-certificates", "ca.crt", "--superlink", "a:1", "--host", "127.0.0.1", "--port", "2"),
        *("--node-config", str(tmp_path / "n.toml"), "--auth-supernode-private-key", "k"),
    )


def test_a_worker_sees_its_own_device_alone() -> None:
    """Or all that there are, where it is the only one."""
    assert services.worker({}, desk=Path("desk"), device="3").environment == {"CUDA_VISIBLE_DEVICES": "3"}
    assert services.worker({}, desk=Path("desk")).environment == {}


def test_a_connection_is_what_flowers_commands_read(tmp_path: Path) -> None:
    """With the authority's certificate where there is one."""
    services.connection(tmp_path, "here", address="127.0.0.1:1")
    read = tomllib.loads((tmp_path / "config.toml").read_text())
    assert read == {"superlink": {"default": "here", "here": {"address": "127.0.0.1:1", "insecure": True}}}
    services.connection(tmp_path, "here", address="a:1", authority=Path("/ca.crt"))
    read = tomllib.loads((tmp_path / "config.toml").read_text())
    assert read["superlink"]["here"] == {"address": "a:1", "root-certificates": "/ca.crt"}


def test_a_missing_program_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the cure."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(FederationError, match="flower-superlink is missing, expected with flwr: install moehub again"):
        services.executable("flower-superlink")


def test_a_configuration_that_flower_would_not_read_as_a_file_is_no_file(tmp_path: Path) -> None:
    """Flower knows a file by the end of its name alone."""
    with pytest.raises(ValueError, match=r"does not end in \.toml"):
        services.node_configuration(tmp_path / "node.conf", {})
