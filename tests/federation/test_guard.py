import io
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from moehub.errors import FederationError
from moehub.federation.deploy import guard, pids, services
from moehub.federation.deploy.processes import Processes, tail

OURS = """
[project]
name = "federation"
version = "0.1.0"
[tool.flwr.app]
publisher = "moehub"
[tool.flwr.app.components]
serverapp = "moehub.federation.server_app:app"
clientapp = "moehub.federation.client_app:app"
"""


def packed(files: Mapping[str, str | bytes]) -> bytes:
    """Return an app as Flower packs it."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as app:
        for name, content in files.items():
            app.writestr(name, content)
    return archive.getvalue()


def test_an_app_of_settings_alone_is_admitted() -> None:
    """What `moehub federate bundle` makes."""
    guard.inspect(packed({"pyproject.toml": OURS, "README.md": "settings", ".info/CONTENT": "hashes"}))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            {"pyproject.toml": OURS, "moehub/federation/client_app.py": ""},
            "it carries 'moehub/federation/client_app.py'",
        ),
        ({"pyproject.toml": OURS, "sitecustomize.py": ""}, "it carries 'sitecustomize.py'"),
        ({"pyproject.toml": OURS, "../x.md": ""}, "it carries '../x.md'"),
        ({"pyproject.toml": OURS, "moehub/README.md": ""}, "it carries"),
        ({"pyproject.toml": OURS, "README.md": b"0" * (9 << 20)}, "it carries a file that is too large"),
        ({"README.md": ""}, "it cannot be read"),
        ({"pyproject.toml": "[project]"}, "it cannot be read"),
        ({"pyproject.toml": "["}, "it cannot be read"),
        ({"pyproject.toml": b"\xff"}, "it cannot be read"),
        ({"pyproject.toml": OURS.replace("client_app:app", "client_app:os.system")}, "its components are"),
        ({"pyproject.toml": OURS.replace("moehub.federation.server_app", "evil")}, "its components are"),
        ({"pyproject.toml": OURS + 'agentapp = "evil:app"\n'}, "its components are"),
    ],
)
def test_any_other_app_is_refused(files: dict[str, str | bytes], reason: str) -> None:
    """Code, other components, what is too large and what is no app; the sentence says which."""
    with pytest.raises(FederationError, match=f"this app is not run here: {reason}"):
        guard.inspect(packed(files))


@pytest.mark.parametrize("app", [b"", b"no archive", packed({"pyproject.toml": OURS})[:-30], os.urandom(9 << 20)])
def test_what_is_no_archive_is_refused(app: bytes) -> None:
    """In the same sentence."""
    with pytest.raises(FederationError, match="this app is not run here"):
        guard.inspect(app)


def test_a_file_that_is_there_twice_is_refused() -> None:
    """Two readers could see two different files."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as app:
        app.writestr("pyproject.toml", OURS)
        with pytest.warns(UserWarning, match="Duplicate name"):
            app.writestr("pyproject.toml", OURS)
    with pytest.raises(FederationError, match="it carries a file twice"):
        guard.inspect(archive.getvalue())


def opened(folder: Path, name: str) -> "subprocess.CompletedProcess[str]":
    """Call a program as Flower does: by its name."""
    environment = services.environment(folder / "home", first=guard.doors(folder / "doors"))
    return subprocess.run([name, "--help"], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["flwr-clientapp", "flwr-serverapp", "flwr-agentapp", "flower-superexec"])
def test_a_door_is_found_first_and_leads_to_flower(tmp_path: Path, name: str) -> None:
    """The names are those by which Flower starts an app's processes."""
    done = opened(tmp_path, name)
    assert (done.returncode, "Flower" in done.stdout) == (0, True)


@pytest.mark.parametrize("name", ["flwr-connector", "flwr-model", "flwr-simulation"])
def test_what_moehub_needs_not_is_shut(tmp_path: Path, name: str) -> None:
    """Flower has more kinds of processes than a federation needs."""
    done = opened(tmp_path, name)
    assert (done.returncode, done.stderr.strip()) == (1, f"{name} is not run here: a moehub federation needs none")


def test_every_process_of_an_app_has_a_door(tmp_path: Path) -> None:
    """Also one that a newer Flower adds."""
    from flwr.supercore.constant import TASK_TYPE_TO_COMMAND

    assert set(TASK_TYPE_TO_COMMAND.values()) <= {path.name for path in guard.doors(tmp_path).iterdir()}


def test_a_flower_that_cannot_be_guarded_runs_nothing() -> None:
    """A function that is no longer where it was would leave a door open."""
    with pytest.raises(SystemExit, match="guard has no install_from_fab"):
        guard._replace(guard, "install_from_fab", print)


ATTACK = """
import os, time
from pathlib import Path
from flwr.app import Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()
Path(os.environ["MARKS"], f"imported-by-{Path(__import__('sys').argv[0]).name}").touch()

@client.query()
def steal(message, context):
    Path(os.environ["MARKS"], "stolen").touch()
    return Message(RecordDict(), reply_to=message)

@server.main()
def main(grid, context):
    while not (nodes := list(grid.get_node_ids())):
        time.sleep(0.2)
    sent = list(grid.push_messages([Message(RecordDict(), dst_node_id=nodes[0], message_type="query")]))
    while not (replies := list(grid.pull_messages(sent))):
        time.sleep(0.2)
    said = replies[0].error.reason if replies[0].has_error() else "done"
    Path(os.environ["MARKS"], context.run_config["note"]).write_text(said)
"""


@dataclass(frozen=True)
class Stage:
    """A SuperLink of an attacker, and a contributor's guarded node."""

    processes: Processes
    folder: Path
    environment: dict[str, str]
    address: str

    @property
    def marks(self) -> Path:
        return self.folder / "marks"

    def submit(self, note: str, code: str | None) -> None:
        app = self.folder / note
        app.mkdir()
        project = OURS.replace("moehub.federation.server_app:app", "attack:server")
        project = project.replace("moehub.federation.client_app:app", "attack:client")
        (app / "pyproject.toml").write_text(f'{project}\n[tool.flwr.app.config]\nnote = "{note}"\n')
        if code is not None:
            (app / "attack.py").write_text(code)
        command = [services.executable("flwr"), "run", str(app), "attacker"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def until(self, holds: Callable[[], bool]) -> None:
        self.processes.wait_for(holds, "the attack", seconds=90)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("stage")
    for name in ("marks", "installed"):
        (folder / name).mkdir()
    (folder / "installed" / "attack.py").write_text(ATTACK)
    environment = services.environment(folder / "home", MARKS=str(folder / "marks"))
    environment["PYTHONPATH"] = os.pathsep.join([environment.get("PYTHONPATH", ""), str(folder / "installed")])
    path = os.pathsep.join([str(guard.doors(folder / "doors")), environment["PATH"]])
    guarded = {**environment, "PATH": path, "FLWR_HOME": str(folder / "node-home")}
    port, own = services.free_ports(2)
    address = f"127.0.0.1:{port}"
    with Processes(folder, grace=2) as running:
        running.start(services.superlink(environment, host="127.0.0.1", port=port, database=folder / "state.db"))
        running.wait_for(lambda: services.healthy("127.0.0.1", port), "the start", seconds=60)
        services.connection(folder / "home", "attacker", address=address)
        running.start(services.superexec(environment, superlink=address))
        node = services.node_configuration(folder / "node.toml", {"domain": "law"})
        running.start(
            services.supernode(guarded, name="node", superlink=address, port=own, configuration=node, restarts=0)
        )
        yield Stage(running, folder, environment, address)


@pytest.mark.parametrize(("note", "code"), [("sent", ATTACK), ("installed-app", None)])
def test_a_guarded_node_runs_no_app_but_moehubs(stage: Stage, note: str, code: str | None) -> None:
    """Neither code that the server sends nor code that happens to be importable; the server is told why."""
    stage.submit(note, code)
    stage.until((stage.marks / note).exists)
    reason = "it carries 'attack.py'" if code else "its components are"
    assert f"this app is not run here: {reason}" in (stage.marks / note).read_text()
    assert {path.name for path in stage.marks.iterdir()} <= {"imported-by-flwr-serverapp", "sent", "installed-app"}
    assert not (stage.folder / "node-home" / "apps").exists()


def test_a_guarded_server_runs_no_app_but_moehubs(stage: Stage) -> None:
    """Whoever reaches the operator's port can hand in an app; its log says why it was not run."""
    for mark in stage.marks.iterdir():
        mark.unlink()
    stage.processes.end("superexec")
    guarded = {
        **stage.environment,
        "PATH": os.pathsep.join([str(stage.folder / "doors"), stage.environment["PATH"]]),
        guard.PLACE: str(stage.folder),
    }
    stage.processes.start(services.superexec(guarded, superlink=stage.address))
    stage.submit("handed-in", ATTACK)
    stage.until(lambda: pids.began(stage.folder, guard.SERVER_APP))
    stage.until(lambda: guard.SERVER_APP not in pids.recorded(stage.folder))
    assert "this app is not run here: it carries 'attack.py'" in tail(stage.processes.log(guard.SERVER_APP), 80)
    assert list(stage.marks.iterdir()) == []


def test_a_door_closes_with_whoever_opened_it(tmp_path: Path) -> None:
    """A killed SuperNode leaves no process of an app behind."""
    script = (
        "import subprocess, sys, os, time\n"
        "child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = services.environment(tmp_path / "home", first=guard.doors(tmp_path / "doors"))
    port = services.free_port()
    superexec = ["flower-superexec", "--insecure", "--runtime-api-address", f"127.0.0.1:{port}"]
    parent = subprocess.Popen(
        [sys.executable, "-c", script, *superexec], env=environment, stdout=-1, stderr=-3, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    time.sleep(1.5)
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait(10)
    parent.stdout.close()
    until = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
