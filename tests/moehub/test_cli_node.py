from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub.cli import main
from moehub.errors import FederationError
from moehub.federation.deploy import contributor_node
from moehub.federation.deploy.address import Address
from moehub.federation.deploy.contributor_node import Contribution
from moehub.federation.deploy.reach import Way
from moehub.federation.settings import NodeConfig


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The contributor's folder, with its text."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MOEHUB_NODE_STATE", str(tmp_path / "node"))
    (tmp_path / "north.txt").write_text("text")
    return tmp_path


def node(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["node", "--domain", "law", "--data", "north.txt", *arguments])


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Contribution, Path]]:
    """Keep what would be run instead of running it; it ends with Ctrl-C."""
    found = []

    def run(contribution: Contribution, folder: Path, **_: object) -> None:
        found.append((contribution, folder))
        raise KeyboardInterrupt

    monkeypatch.setattr(contributor_node, "run", run)
    return found


def test_the_first_start_makes_a_key_and_says_what_to_do(place: Path, ran: list[tuple[Contribution, Path]]) -> None:
    """It does not try to connect, because nobody can know the key."""
    done = node("--superlink", "fed.example.org:8443", "--name", "St Mary")
    assert done.exit_code == 0, done.output
    assert 'moehub federate register key.pub --name "St Mary" --domain law' in done.stderr
    assert (place / "node" / "key.pub").exists()
    assert ran == []


def test_a_node_is_what_the_options_say(place: Path, ran: list[tuple[Contribution, Path]]) -> None:
    """Paths are absolute, because its processes work elsewhere; Ctrl-C is a good end."""
    (place / "base").mkdir()
    options = ["--superlink", "fed.example.org:8443", "--name", "N", "--credit", "--base", "base", "--rank", "4"]
    options += ["--accumulation", "2", "--gradient-checkpointing", "--suppress-below", "5", "--key", "mine"]
    assert node(*options).exit_code == 0
    done = node(*options)
    assert (done.exit_code, "its key stays registered" in done.stderr) == (0, True), done.output
    data, base = (place / "north.txt",), str(place / "base")
    expected = NodeConfig("law", data, "N", True, base, 4, 2, True, 5)
    assert ran == [(Contribution(expected, Way(Address("fed.example.org", 8443)), place / "mine"), place / "node")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "where is the server"),
        (["--superlink", "fed.example.org:1", "--insecure"], "is for a server on this machine"),
        (["--superlink", "fed.example.org"], "expected HOST:PORT"),
        (["--superlink", "a:1", "--data", "missing.txt"], "does not exist"),
        (["--superlink", "a:1", "--credit"], "add --name"),
        (["--invitation", "north.txt"], "is no invitation"),
    ],
)
def test_bad_usage_is_told_before_anything_is_made(
    place: Path, ran: list[tuple[Contribution, Path]], options: list[str], said: str
) -> None:
    """In a sentence, with exit code 2."""
    done = node(*options)
    assert (done.exit_code, said in done.output) == (2, True), done.output
    assert not (place / "node").exists()
    assert ran == []


def test_a_refusal_is_one_sentence(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With exit code 1, and no traceback."""

    def refuse(*_: object, **__: object) -> None:
        raise FederationError("fed.example.org:1 does not let the key in")

    monkeypatch.setattr(contributor_node, "run", refuse)
    assert node("--superlink", "fed.example.org:1").exit_code == 0
    done = node("--superlink", "fed.example.org:1")
    assert (done.exit_code, done.output) == (1, "Error: fed.example.org:1 does not let the key in\n")
    assert (place / "node" / "key").exists()
