import configparser
import json
import os
import re
import shlex
import signal
import socket
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner, Result

from moehub.cli import federate, main
from moehub.federation.deploy import pids, server
from moehub.federation.deploy.address import Address
from moehub.federation.deploy.control import Control
from moehub.federation.deploy.server_folder import Job, ServerFolder, Serving
from moehub.federation.journal import Aggregated, Began, Ended, Journal

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The server's folder, as the environment names it."""
    monkeypatch.setenv("MOEHUB_FEDERATION_STATE", str(tmp_path / "server"))
    return tmp_path / "server"


@pytest.fixture
def file(tmp_path: Path, base_folder: Path) -> Path:
    (tmp_path / "federation.yaml").write_text(yaml.safe_dump({"base": str(base_folder), "train": {"rank": 2}}))
    return tmp_path / "federation.yaml"


def federated(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["federate", *map(str, arguments)])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--insecure", "--host", "0.0.0.0"], "can be reached from others"),  # noqa: S104 (it is refused)
        (["--insecure", "--address", "fed.example.org"], "can be reached from others"),
        (["--host", "0.0.0.0"], "name it with --address"),  # noqa: S104 (it is refused)
        (["--behind-proxy"], "name it with --address"),
        (["--address", "https://fed.example.org"], "is no address"),
        (["--port", "0"], "not in the range"),
    ],
)
def test_what_would_open_the_server_is_refused(state: Path, options: list[str], said: str) -> None:
    """As bad usage, before anything is made."""
    done = federated("server", *options)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert not state.exists()


def test_faulty_settings_are_told_before_anything_is_started(state: Path, file: Path) -> None:
    """All of them."""
    file.write_text("base: x\nrounds: 0\nsteps: 0\n")
    done = federated("server", file)
    assert (done.exit_code, "rounds = 0" in done.output, "steps = 0" in done.output) == (2, True, True), done.output
    assert not state.exists()


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Path, server.Offer, Any]]:
    """Keep what would be served instead of serving it; it ends with Ctrl-C."""
    found = []

    def serve(path: Path, offer: server.Offer, *, begin: Any, **_: Any) -> None:
        found.append((path, offer, begin))
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serve", serve)
    return found


def test_the_options_say_where_and_how(state: Path, offered: list[tuple[Path, server.Offer, Any]]) -> None:
    """Ports that are not named are those of the server, or of HTTPS behind a proxy; Ctrl-C is a good end."""
    everywhere = "0.0.0.0"  # noqa: S104 (nothing is bound)
    done = federated("server", "--host", everywhere, "--address", "a.org", "--address", "b.org:1", "--port", "9000")
    assert done.exit_code == 0, done.output
    assert federated("server", "--behind-proxy", "--address", "a.org").exit_code == 0
    listen = Address(everywhere, 9000)
    assert [each[:2] for each in offered] == [
        (state, server.Offer(listen, (Address("a.org", 9000), Address("b.org", 1)))),
        (state, server.Offer(Address("127.0.0.1", 8443), (Address("a.org", 443),), behind_proxy=True)),
    ]


@pytest.mark.usefixtures("state")
def test_a_port_that_is_taken_is_one_sentence() -> None:
    """Somebody else would answer the nodes."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = federated("server", "--port", str(port))
    assert done.exit_code == 1
    assert done.output.startswith(f"Error: the server cannot listen at 127.0.0.1:{port} (Address already in use):")


@pytest.fixture
def served(state: Path, monkeypatch: pytest.MonkeyPatch) -> ServerFolder:
    """A server that was started, and whose SuperLink takes everything."""
    folder = ServerFolder(state)
    folder.serve(Serving("fed.example.org:8443", "", 20_000))
    monkeypatch.setattr(Control, "submit", lambda *_, **__: 7)
    monkeypatch.setattr(Control, "stop", lambda *_: True)
    return folder


def test_a_server_begins_the_run_of_its_file(
    served: ServerFolder, offered: list[tuple[Path, server.Offer, Any]], file: Path
) -> None:
    """With the nodes that it is to wait for."""
    assert federated("server", file, "--expect", "3").exit_code == 0
    offered[0][2](served, Control(served.place))
    assert served.job() == Job(1, 7, str(served.run(1)), 0)
    assert "expected = 3\n" in (served.bundle / "pyproject.toml").read_text()


def test_a_run_is_handed_over_and_its_folder_printed(served: ServerFolder, file: Path) -> None:
    """One at a time."""
    done = federated("run", file, "--set", "rounds=7")
    assert (done.exit_code, done.stdout) == (0, f"{served.run(1)}\n")
    assert "rounds = 7\n" in (served.bundle / "pyproject.toml").read_text()
    again = federated("run", file)
    assert (again.exit_code, "run 1 is in progress" in again.output) == (1, True)
    assert (federated("stop").exit_code, federated("stop").exit_code) == (0, 1)
    assert federated("run", file, "--resume").stdout == f"{served.run(1)}\n"


def test_a_run_that_is_followed_shows_its_end(
    served: ServerFolder, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And fails where it did."""

    def submit(*_: object, **__: object) -> int:
        Journal(served.run(1)).write(Began("run", "org/base", "ffa", 3, 0))
        return 7

    monkeypatch.setattr(Control, "submit", submit)
    assign = ServerFolder.assign
    monkeypatch.setattr(ServerFolder, "assign", lambda folder, job: assign(folder, job if job.outcome else _over(job)))
    done = federated("run", file, "--follow")
    assert (done.exit_code, done.stdout) == (1, f"{served.run(1)}\n")
    assert "federation on org/base: 3 rounds of ffa" in done.stderr
    assert done.stderr.endswith("Error: run 1: failed: the disk is full\n")


def _over(job: Job) -> Job:
    return Job(job.number, job.flower, job.output, job.since, "failed: the disk is full")


def test_the_status_is_shown_as_a_table_and_as_json(served: ServerFolder) -> None:
    """The same facts."""
    served.assign(Job(1, 7, str(served.run(1)), 0, "finished"))
    journal = Journal(served.run(1))
    for event in (Began("run", "org/base", "ffa", 3, 0), Aggregated(1, "law", 2, 1.25, 1000, 2000, 4.0), Ended(1, 9.0)):
        journal.write(event)
    shown = federated("status").output
    assert "the server does not run; nodes would come to fed.example.org:8443" in shown
    assert ", 3 rounds of ffa on org/base: finished" in " ".join(shown.split())
    assert re.search(r"law +1 +2 +1\.2500 +3\.0 kB +4", shown)
    found = json.loads(federated("status", "--json").stdout)
    assert found["run"]["done"] == [
        {"domain": "law", "round": 1, "nodes": 2, "loss": 1.25, "bytes": 3000, "seconds": 4.0}
    ]


def test_stop_ends_the_server_by_its_pid(served: ServerFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else; where none runs it says so."""
    assert federated("stop", "--server").output == (
        f"Error: no federation runs in {served.path}: name its folder with --state\n"
    )
    ended = []
    monkeypatch.setattr("psutil.Process.terminate", lambda process: ended.append(process.pid))
    monkeypatch.setattr("moehub.federation.deploy.handover._lives", lambda _: False)
    pids.record(served.place, "server", os.getpid())
    assert federated("stop", "--server").exit_code == 0
    assert ended == [os.getpid()]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_logs_are_results(served: ServerFolder) -> None:
    """They can be piped."""
    (served.place / "logs").mkdir(parents=True)
    (served.place / "logs" / "serverapp.log").write_text("one\ntwo\n")
    assert federated("logs", "--lines", "1").stdout == "two\n"
    assert federated("logs", "gateway").exit_code == 1


@pytest.mark.parametrize("name", ["moehub-server.service", "moehub-node.service", "nginx.conf"])
def test_the_page_quotes_the_files_as_they_are(name: str) -> None:
    """They are what is tested."""
    lines = (DOCS / "federation" / name).read_text().splitlines()
    quoted = "".join(f"    {line}\n" if line else "\n" for line in lines)
    assert quoted in (DOCS / "federation.md").read_text()


@pytest.mark.parametrize("name", ["moehub-server.service", "moehub-node.service"])
def test_the_services_start_commands_that_exist(name: str) -> None:
    """With options that exist."""
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # systemd's keys have capitals
    unit.read(DOCS / "federation" / name)
    _, *words = shlex.split(unit["Service"]["ExecStart"])
    assert unit["Service"]["Restart"] == "always"
    found: click.Command = main
    while isinstance(found, click.Group):
        inner = found.get_command(click.Context(found), words.pop(0))
        assert inner is not None
        found = inner
    used = {word for word in words if word.startswith("--")}
    assert used <= {option for parameter in found.params for option in parameter.opts}


def test_the_page_speaks_of_commands_and_options_that_exist() -> None:
    """An example that was true once and is no longer would mislead."""
    for line in (DOCS / "federation.md").read_text().splitlines():
        if not line.startswith("    moehub federate "):
            continue
        name, *words = line.split()[2:]
        found = federate.command.get_command(click.Context(federate.command), name)
        assert found is not None, line
        known = {option for parameter in found.params for option in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line
