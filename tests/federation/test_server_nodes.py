"""A real server and a real node, by TLS and keys through the gateway, as two people start them."""

import contextlib
import http.client
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from moehub.federation.deploy import pids, services
from moehub.federation.deploy.server_folder import ServerFolder
from moehub.federation.journal import Aggregated, Began, Ended, Event, Joined, Journal
from tests.federation.launched import CHECKOUT, TEXTS


@dataclass
class Started:
    """A command in the background, and what it wrote."""

    command: "subprocess.Popen[str]"
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def until(self, holds: Callable[[], object], seconds: float = 120) -> None:
        """Wait for something; the command must not end before it."""
        end = time.monotonic() + seconds
        while not holds():
            assert self.command.poll() is None, self.said()
            assert time.monotonic() < end, self.said()
            time.sleep(0.1)

    def ended(self, seconds: float = 90) -> int:
        return self.command.wait(seconds)


@dataclass
class Two:
    """The operator's machine and the contributor's."""

    folder: Path
    base: Path
    port: int = field(default_factory=services.free_port)
    commands: list[Started] = field(default_factory=list)

    @property
    def server(self) -> ServerFolder:
        return ServerFolder(self.folder / "server")

    def start(self, *words: str | Path) -> Started:
        log = self.folder / f"{len(self.commands)}.log"
        with log.open("w") as file:
            command = subprocess.Popen(
                [sys.executable, "-m", "moehub", *map(str, words)],
                cwd=CHECKOUT,
                env={**os.environ, "MOEHUB_FEDERATION_STATE": str(self.server.path)},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.commands.append(Started(command, log))
        return self.commands[-1]

    def run(self, *words: str | Path) -> tuple[int, str]:
        """Run a command to its end; return exit code and what it said."""
        started = self.start(*words)
        return started.ended(), started.said()

    def serve(self) -> Started:
        started = self.start("federate", "server", "--port", str(self.port))
        started.until(lambda: f"nodes come to 127.0.0.1:{self.port}" in started.said())
        return started

    def node(self) -> Started:
        options: list[str | Path] = ["--domain", "law", "--data", self.folder / "law.txt", "--base", self.base]
        places: list[str | Path] = ["--invitation", self.folder / "invitation.json", "--state", self.folder / "node"]
        return self.start("node", *places, *options)

    def events(self, kind: type[Event]) -> list[Event]:
        entries = Journal(self.server.run(1)).entries()
        return [entry.event for entry in entries if isinstance(entry.event, kind)]


@pytest.fixture
def two(tmp_path: Path, base_folder: Path) -> Iterator[Two]:
    found = Two(tmp_path, base_folder)
    lines = (TEXTS["north"].format(number, number * 7 % 31) * 3 for number in range(60))
    (tmp_path / "law.txt").write_text("\n\n".join(lines))
    train = {"rank": 4, "targets": ["q_proj", "v_proj"], "batch_size": 4, "context_length": 64, "pair_bits": 10}
    values = {"base": str(base_folder), "rounds": 3, "steps": 4, "train": train}
    (tmp_path / "federation.yaml").write_text(yaml.safe_dump(values))
    try:
        yield found
    finally:
        for started in found.commands:
            if started.command.poll() is None:
                started.command.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    started.command.wait(60)


def outside(two: Two, path: str) -> int:
    """Ask the public address for something that is none of a node's business."""
    context = ssl.create_default_context(cafile=two.server.tls / "ca.crt")
    with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", two.port, context=context)) as wire:
        wire.request("POST", path, b"", {"Content-Type": "application/protobuf"})
        return wire.getresponse().status


def family(command: "subprocess.Popen[str]") -> list[psutil.Process]:
    parent = psutil.Process(command.pid)
    return [parent, *parent.children(recursive=True)]


def test_two_people_train_an_expert_whatever_dies(two: Two) -> None:
    """Key, registration, invitation, run; the server is killed in a round; at last the node is shut out."""
    server = two.serve()
    assert [outside(two, f"/v1/{each}") for each in ("control/list-runs", "runtime/acquire-task")] == [403, 403]
    code, said = two.run("federate", "invite", two.folder / "federation.yaml", "-o", two.folder / "invitation.json")
    assert code == 0, said

    code, said = (first := two.node()).ended(), first.said()
    assert (code, "moehub federate register key.pub --name NAME --domain law" in said) == (0, True), said
    second = two.node()
    assert second.ended() == 1
    assert f"Error: 127.0.0.1:{two.port} does not let the key {two.folder / 'node' / 'key'} in" in second.said()
    assert "Traceback" not in second.said()

    code, said = two.run("federate", "register", two.folder / "node" / "key.pub", "--name", "North", "--domain", "law")
    assert code == 0, said
    node = two.node()
    node.until(lambda: f"connected to 127.0.0.1:{two.port} as node" in node.said())
    code, said = two.run("federate", "run", two.folder / "federation.yaml")
    assert (code, said) == (0, f"{two.server.run(1)}\n")
    server.until(lambda: two.events(Aggregated), 180)

    processes = family(server.command)
    server.command.kill()
    server.command.wait(10)
    assert psutil.wait_procs(processes[1:], timeout=10)[1] == []
    server = two.serve()
    assert "going on with run 1, which was in progress" in server.said()
    server.until(lambda: two.events(Ended), 240)
    began, ended = two.events(Began), two.events(Ended)[-1]
    assert [each.after > 0 for each in began if isinstance(each, Began)] == [False, True]
    assert isinstance(ended, Ended)
    assert (ended.experts, ended.failure) == (1, "")
    assert {each.node for each in two.events(Joined) if isinstance(each, Joined)} == {"North"}
    assert (two.server.run(1) / "experts" / "law" / "expert.json").exists()

    server.until(lambda: (job := two.server.job()) is not None and job.outcome == "finished")
    code, said = two.run("federate", "status", "--json")
    assert code == 0, said
    found = json.loads(said)
    assert [(each["name"], each["domain"], each["state"]) for each in found["nodes"]] == [("North", "law", "online")]
    assert (found["run"]["state"], [each["round"] for each in found["run"]["done"]]) == ("finished", [1, 2, 3])

    code, said = two.run("federate", "unregister", "North")
    assert code == 0, said
    assert node.ended() == 1
    assert "does not let the key" in node.said()

    processes = family(server.command)
    code, said = two.run("federate", "stop", "--server")
    assert (code, said) == (0, "the server has ended\n")
    server.ended(10)
    assert psutil.wait_procs(processes, timeout=5)[1] == []
    assert pids.recorded(two.server.place) == {}
