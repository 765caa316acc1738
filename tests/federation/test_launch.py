"""One real federation on loopback: SuperLink, three SuperNodes, the worker, two rounds, two experts."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from moehub.errors import FederationError
from moehub.experts.folder import open_expert
from moehub.federation.deploy import guard, launch, pids, services
from moehub.federation.deploy.place import clear, held
from moehub.federation.deploy.processes import Processes
from moehub.federation.deploy.progress import Progress
from moehub.federation.journal import Aggregated, Ended, GaveUp, Joined, Journal, Published
from moehub.federation.settings import NodeConfig
from tests.federation.launched import Launched, gathering, launched


@dataclasses.dataclass(frozen=True)
class Finished:
    """A federation that has ended well."""

    run: Launched
    file: Path
    home: Path
    code: int
    out: dict[str, Any]
    err: str


@pytest.fixture(scope="module")
def finished(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("federation")
    file, home = gathering(folder / "of three", base_folder), folder / "home"
    home.mkdir()
    with launched(file, folder / "out put", ["--json"], HOME=str(home)) as run:
        code, out, err = run.finish()
    assert code == 0, err
    return Finished(run, file, home, code, json.loads(out), err)


def test_each_domain_has_an_expert(finished: Finished) -> None:
    """Complete, checked against its card, of all the domain's nodes and rounds."""
    folders = {path.name: path for path in (finished.run.output / "experts").iterdir()}
    assert sorted(folders) == ["code", "law"]
    cards = {name: open_expert(path).card for name, path in folders.items()}
    told = {name: (card.federation.nodes, card.federation.rounds) for name, card in cards.items() if card.federation}
    assert told == {"code": (1, 2), "law": (2, 2)}
    assert [(each["domain"], each["nodes"], each["folder"]) for each in finished.out["experts"]] == [
        (name, told[name][0], str(folders[name])) for name in ("code", "law")
    ]
    assert (finished.out["failure"], finished.out["gave_up"]) == ("", [])


def test_only_who_agreed_is_named(finished: Finished) -> None:
    """In what may be published; on this machine everybody is known by their name."""
    written = b"".join(path.read_bytes() for path in (finished.run.output / "experts").rglob("*") if path.is_file())
    assert (b"St Mary" in written, b"Secret" in written) == (True, False)
    assert "Secret Ltd joined: law, on cpu" in finished.err
    assert "node 3 (code) joined: code, on cpu" in finished.err


def test_the_run_is_told_as_it_goes(finished: Finished) -> None:
    """Plain lines on standard error, from the start of the server to the experts."""
    assert len(finished.run.events(Joined)) == 3
    assert len(finished.run.events(Aggregated)) == 4
    assert len(finished.run.events(Published)) == 2
    assert [event.failure for event in finished.run.events(Ended) if isinstance(event, Ended)] == [""]
    lines = finished.err.splitlines()
    assert lines[0] == "starting the server"
    assert sum(line.startswith(("round 1, ", "round 2, ")) for line in lines) == 4
    assert any(line.startswith("law is finished: held-out loss") for line in lines)


def test_nothing_is_left_behind(finished: Finished) -> None:
    """No process, and nothing of Flower's in the person's own home."""
    assert len(finished.run.seen) > 10
    assert finished.run.left() == []
    assert not (finished.home / ".flwr").exists()
    assert list((finished.run.place / "pids").glob("node*")) == []


def test_a_finished_run_is_not_run_into(finished: Finished) -> None:
    """Before anything is started, unless somebody says what is to become of it."""
    with pytest.raises(FederationError, match="holds a federation already: go on with --resume"):
        launch.check(finished.run.output, resume=False, overwrite=False)
    launch.check(finished.run.output, resume=True, overwrite=False)
    launch.check(finished.run.output, resume=False, overwrite=True)
    launch.check(finished.run.output.with_name("new"), resume=False, overwrite=False)


def test_two_commands_do_not_run_in_one_output(tmp_path: Path) -> None:
    """The second is told where the first is."""
    place = tmp_path / "out" / ".flower"
    with held(place), pytest.raises(FederationError, match=rf"is running in {tmp_path / 'out'}"), held(place):
        pass
    with held(place):
        pass


@pytest.mark.parametrize(("resume", "left"), [(True, {"lock", "desks"}), (False, {"lock"})])
def test_what_an_earlier_run_left_is_removed(tmp_path: Path, *, resume: bool, left: set[str]) -> None:
    """Flower's state would be of runs that no longer are; kept answers serve a resumed run."""
    for name in ("desks", "logs", "home"):
        (tmp_path / name).mkdir()
    for name in ("lock", "state.db", "state.db-wal"):
        (tmp_path / name).touch()
    clear(tmp_path, resume=resume)
    assert {path.name for path in tmp_path.iterdir()} == left


@pytest.mark.parametrize("data", ["plain.txt", 'it\'s "quoted".txt', "with spaces — ü.txt"])
def test_a_nodes_configuration_reaches_its_client_app(tmp_path: Path, data: str) -> None:
    """Through Flower's own reading of it, whatever the files are called."""
    from flwr.common.config import parse_config_args

    from moehub.federation.deploy.services import node_configuration
    from moehub.federation.node.contributor import from_flower, to_flower

    node = NodeConfig("law", (Path("/data") / data, Path("/b.txt")), name='St. Mary\'s "x"', credit=True, rank=4)
    written = node_configuration(tmp_path / "a node.toml", to_flower(node, tmp_path / "desk"))
    found, desk = from_flower(parse_config_args([str(written)]))
    assert (found, desk) == (node, tmp_path / "desk")


@dataclasses.dataclass
class Watched:
    """A run whose server is this test."""

    processes: Processes
    journal: Journal

    def follow(self, *, at: int = 0, seconds: float = 20) -> launch.Outcome:
        progress = Progress(screen=Console(file=io.StringIO()))
        return launch._follow(self.processes, progress, self.journal, at, seconds)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with Processes(tmp_path / ".flower") as processes:
        yield Watched(processes, Journal(tmp_path))


def begin(watched: Watched, *, pid: int) -> None:
    pids.record(watched.processes.folder, guard.SERVER_APP, pid)


def test_the_outcome_is_what_this_run_told(watched: Watched) -> None:
    """An earlier run's part of the journal is passed over."""
    watched.journal.write(Ended(5, 9.0, "it was stopped"))
    _, at = watched.journal.read()
    published, gave_up = Published("law", "/x", 1, 5.0, 4.0, 9), GaveUp(1, "code", "no quorum")
    for event in (published, gave_up, Ended(1, 3.5)):
        watched.journal.write(event)
    begin(watched, pid=os.getpid())
    assert watched.follow(at=at) == launch.Outcome((published,), (gave_up,), 3.5, "")


def test_a_server_that_died_is_shown_with_its_last_words(watched: Watched) -> None:
    """And how to go on."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as server:
        begin(watched, pid=server.pid)
        server.kill()
    watched.processes.log(guard.SERVER_APP).write_text("MemoryError: too large\n")
    with pytest.raises(FederationError, match=r"ended before the federation did: (?s:.*)--resume(?s:.*)too large"):
        watched.follow()


def test_a_server_that_never_begins_is_waited_for_only_so_long(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of what should have started it is shown."""
    monkeypatch.setattr(launch, "_READY", 0.3)
    watched.processes.log("superexec").write_text("cannot connect\n")
    with pytest.raises(FederationError, match=r"the server does not begin: (?s:.*)cannot connect"):
        watched.follow()


def test_a_run_may_have_a_time_limit(watched: Watched) -> None:
    """As tests and the demo want it."""
    begin(watched, pid=os.getpid())
    with pytest.raises(FederationError, match="did not end within 0 seconds"):
        watched.follow(seconds=0.1)


def test_flowers_refusal_is_a_sentence(tmp_path: Path) -> None:
    """Without the frame that Flower draws around it."""
    (tmp_path / "app").mkdir()
    services.connection(tmp_path / "home", "moehub", address="127.0.0.1:1")
    with pytest.raises(FederationError, match="Flower refuses the run: ") as refused:
        launch._submit(tmp_path / "app", tmp_path)
    assert not set(str(refused.value)) & set("│╭╮╰╯─\n")


@pytest.mark.parametrize(
    ("visible", "count", "devices"), [(None, 2, ["0", "1"]), ("3,GPU-7f,5", 2, ["3", "GPU-7f"]), (None, 0, [])]
)
def test_each_accelerator_has_a_worker(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, count: int, devices: list[str]
) -> None:
    """Those that this process may use, by the names that it was given."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert launch._accelerators() == devices
