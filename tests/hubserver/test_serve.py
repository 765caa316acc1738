"""A hub as people start and stop it: `moehub hub serve` as a process."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self
from urllib.parse import urlsplit

import httpx2
import pytest
from click.testing import CliRunner, Result

from moehub.cli import main
from moehub.errors import ConfigError, HubError
from moehub.hubserver import serve
from moehub.hubserver.settings import ServerSettings
from moehub.hubserver.store.store import open_store
from tests.hubserver import wire
from tests.hubserver.conftest import Served
from tests.hubserver.wire import REPO, address, committed, create, large

CHECKOUT = Path(__file__).parents[2]


@dataclass
class Started:
    """A hub in a process of its own."""

    process: subprocess.Popen[str]
    url: str
    said: list[str]
    """What it has said on standard error so far."""

    def served(self, root: Path) -> Served:
        store = open_store(root)
        token = store.tokens.create("ada", ["acme"], writes=True)[1]
        return Served(self.url, store, token, token, token)

    def peak(self) -> int:
        """The most memory that it has held, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) << 10

    def stop(self, by: int = signal.SIGTERM) -> int:
        self.process.send_signal(by)
        return self.process.wait(30)


@contextlib.contextmanager
def started(root: Path, *options: str) -> Iterator[Started]:
    """Start a hub, wait until it answers, and end it if the block did not."""
    command = [
        sys.executable,
        "-m",
        "moehub",
        "hub",
        "serve",
        "--root",
        str(root),
        "--port",
        "0",
        "--no-gate",
        *options,
    ]
    with subprocess.Popen(command, cwd=CHECKOUT, stderr=subprocess.PIPE, text=True) as process:
        said: list[str] = []
        try:
            assert process.stderr is not None
            url = _address(process.stderr, said)
            reader = threading.Thread(target=said.extend, args=(process.stderr,), daemon=True)
            reader.start()
            while not _answers(url):
                time.sleep(0.02)
            yield Started(process, url, said)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(10)
            reader.join(10)


def _address(stderr: IO[str], said: list[str]) -> str:
    for line in stderr:
        said.append(line)
        if found := re.search(r"answers at (\S+)", line):
            return found[1]
    raise AssertionError("".join(said))


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        return httpx2.get(f"{url}/api/models", trust_env=False).status_code == 200
    return False


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["hub", "serve", *map(str, arguments)])


def test_it_says_how_to_use_it_and_stops_when_told(tmp_path: Path) -> None:
    """SIGTERM is no failure: a service that is stopped ends with 0."""
    with started(tmp_path / "hub") as hub:
        assert hub.stop() == 0
    said = "".join(hub.said)
    assert f"export HF_ENDPOINT={hub.url}" in said
    assert "moehub hub token create" in said
    assert said.endswith("stopped\n")
    assert "Traceback" not in said


def test_ctrl_c_is_no_failure_either(tmp_path: Path) -> None:
    """And each request was one short line, with the time."""
    with started(tmp_path / "hub", "--open") as hub:
        assert hub.stop(signal.SIGINT) == 0
    assert re.search(r"^\d\d:\d\d:\d\d anonymous GET /api/models 200 2 B \d+ ms$", "".join(hub.said), re.MULTILINE)
    assert "without a token" in "".join(hub.said)


def test_an_upload_in_progress_gets_to_its_end(tmp_path: Path) -> None:
    """The hub that is told to stop takes what is coming, and keeps it."""
    root, content = tmp_path / "hub", os.urandom(300_000)
    with started(root) as hub:
        ada = hub.served(root)
        create(ada)
        path = address(ada, content)
        head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n\r\n".encode()
        with socket.create_connection(("127.0.0.1", urlsplit(hub.url).port or 0), timeout=20) as connection:
            connection.sendall(head + content[:1000])
            while not list((root / "incoming").iterdir()):
                time.sleep(0.01)
            hub.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            connection.sendall(content[1000:])
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
        assert hub.process.wait(30) == 0
    assert ada.store.blobs.path(wire.sha256(content)).read_bytes() == content
    ada.store.database.close()


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Also tokens and the addresses that were signed before."""
    root, content = tmp_path / "hub", b"\0tensors"
    with started(root) as hub:
        ada = hub.served(root)
        create(ada)
        path = address(ada, content)
        hub.stop()
    with started(root) as hub:
        again = Served(hub.url, ada.store, ada.ada, ada.ada, ada.ada)
        assert again.ask("PUT", path, content=content).status_code == 200
        oid = committed(again, large("a.safetensors", content))
        assert again.ask("GET", f"/{REPO}/resolve/{oid}/a.safetensors").content == content
    ada.store.database.close()


def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file of 150 MB goes in and out through a few MiB."""
    root, size = tmp_path / "hub", 150 << 20
    block = os.urandom(1 << 20)
    content = block * (size >> 20)
    with started(root) as hub:
        ada = hub.served(root)
        create(ada)
        before = hub.peak()
        assert ada.ask("PUT", address(ada, content), content=content).status_code == 200
        oid = committed(ada, large("a.safetensors", content))
        assert ada.ask("GET", f"/{REPO}/resolve/{oid}/a.safetensors").content == content
        assert hub.peak() - before < 40 << 20
    ada.store.database.close()


def test_two_servers_over_one_folder_are_refused(tmp_path: Path) -> None:
    """And when the first one has gone, the folder is free."""
    settings = ServerSettings(tmp_path / "hub", port=0, gate=False)
    with serve.running(settings), pytest.raises(HubError, match=r"is serving .* already"), serve.running(settings):
        raise AssertionError
    with serve.running(settings) as url:
        assert url.startswith("http://127.0.0.1:")


def test_what_uploads_left_behind_goes_after_a_day(tmp_path: Path) -> None:
    """Parts that came lately stay: their sender may come back after the hub does."""
    open_store(tmp_path / "hub", create=True).database.close()
    incoming = tmp_path / "hub" / "incoming"
    for name, hours in (("part-1-ab-5-1", 25), ("part-1-ab-5-2", 1)):
        (incoming / name).write_bytes(b"x")
        os.utime(incoming / name, (time.time() - hours * 3600,) * 2)
    with serve.running(ServerSettings(tmp_path / "hub", port=0, gate=False)):
        assert [path.name for path in incoming.iterdir()] == ["part-1-ab-5-2"]


def test_a_port_that_is_taken_is_told_in_a_sentence(tmp_path: Path) -> None:
    """And no folder is made."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("--root", tmp_path / "hub", "--port", port)
    sentence = f"the hub cannot listen at 127.0.0.1 port {port} (Address already in use): "
    cure = "stop what is there, or choose another with --host and --port"
    assert (result.exit_code, result.stderr) == (1, f"Error: {sentence}{cure}\n")
    assert not (tmp_path / "hub").exists()


def test_a_name_that_is_no_address_is_told_in_a_sentence(tmp_path: Path) -> None:
    """Without a traceback."""
    result = run("--root", tmp_path / "hub", "--host", "no-such-host.invalid")
    assert (result.exit_code, "the hub cannot listen at no-such-host.invalid" in result.stderr) == (1, True)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    """It may be somebody's home."""
    (tmp_path / "letter.txt").write_text("Dear reader")
    result = run("--root", tmp_path, "--port", 0)
    assert (result.exit_code, "holds something else than a hub" in result.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--open", "--host", "0.0.0.0"], "would let the whole network write"),  # noqa: S104 (that is refused)
        (["--quota", "lots"], "is no size"),
        (["--quota", "0"], "is no size"),
        (["--url", "hub.example.org"], "expected the scheme and the name"),
        (["--url", "https://hub.example.org/below"], "expected the scheme and the name"),
        (["--url", "https://a:b@hub.example.org"], "expected the scheme and the name"),
        (["--url", "https://hub.example.org:x"], "expected the scheme and the name"),
        (["--port", "70000"], "70000"),
    ],
)
def test_bad_usage_exits_with_two(tmp_path: Path, options: list[str], sentence: str) -> None:
    """Before anything is made."""
    result = run("--root", tmp_path / "hub", *options)
    assert (result.exit_code, sentence in result.stderr) == (2, True)
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", 5), ("1k", 1024), ("200M", 200 << 20), ("1.5G", 3 << 29), ("2TiB", 2 << 40), ("3 GB", 3 << 30)],
)
def test_sizes_are_read_as_people_write_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, expected: int
) -> None:
    """In units of 1024; every option reaches the hub."""
    found: list[ServerSettings] = []
    monkeypatch.setattr(serve, "serve", found.append)
    options = ["--quota", text, "--allow-pickle", "--base", "a/b", "--base", "c", "--no-gate", "--url", "http://h:1/"]
    assert run("--root", tmp_path, *options).exit_code == 0
    assert found == [
        ServerSettings(tmp_path, quota=expected, pickles=True, bases=("a/b", "c"), gate=False, url="http://h:1")
    ]


def test_settings_that_no_option_can_make_are_refused_too() -> None:
    """Programs start hubs as well."""
    for values in ({"port": -1}, {"quota": 0}, {"largest_file": -5}):
        with pytest.raises(ConfigError, match="expected"):
            ServerSettings(Path("hub"), **values)  # type: ignore[arg-type]  # one of them each


def test_ipv6(tmp_path: Path) -> None:
    """Its addresses stand in brackets."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with serve.running(ServerSettings(tmp_path / "hub", host="::1", port=0, open=True, gate=False)) as url:
        assert url.startswith("http://[::1]:")
        assert httpx2.get(f"{url}/api/models", trust_env=False).json() == []


def test_the_gate_is_asked_unless_it_is_told_not_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says about a commit counts; its process ends with the hub."""
    closed: list[bool] = []

    class Gate:
        def __call__(self, *_: object) -> None:
            raise HubError("nothing comes in")

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            closed.append(True)

    monkeypatch.setattr(serve, "checker", lambda _store, _settings: Gate())
    for gate, status in ((True, 500), (False, 200)):
        root = tmp_path / str(gate)
        with serve.running(ServerSettings(root, port=0, gate=gate)) as url:
            store = open_store(root)
            token = store.tokens.create("ada", ["acme"], writes=True)[1]
            hub = Served(url, store, token, token, token)
            create(hub)
            assert wire.commit(hub, wire.file("a")).status_code == status
            store.database.close()
    assert closed == [True]
