"""One real federation on loopback: SuperLink, three SuperNodes, the worker, two rounds, two experts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from moehub.errors import FederationError
from moehub.experts.folder import open_expert
from moehub.federation.deploy import launch
from moehub.federation.deploy.place import clear, held
from moehub.federation.journal import Aggregated, Ended, Joined, Published
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
    assert {name: (card.federation.nodes, card.federation.rounds) for name, card in cards.items()} == {
        "code": (1, 2),
        "law": (2, 2),
    }
    assert [(each["domain"], each["nodes"], each["folder"]) for each in finished.out["experts"]] == [
        (name, cards[name].federation.nodes, str(folders[name])) for name in ("code", "law")
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
    from moehub.federation.node.contributor import from_flower

    node = NodeConfig("law", (Path("/data") / data, Path("/b.txt")), name='St. Mary\'s "x"', credit=True, rank=4)
    written = node_configuration(tmp_path / "a node.toml", launch.configured(node, tmp_path / "desk", "/base"))
    found, desk = from_flower(parse_config_args([str(written)]))
    assert (found, desk) == (dataclasses.replace(node, base="/base"), tmp_path / "desk")
