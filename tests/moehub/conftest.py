"""A small MoE with its base and experts, made once, and the command line in process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from moehub.cli import main
from moehub.hub import Hub, open_hub
from tests import loopback_hub
from tests.builders import tiny_base, tiny_expert

LAW = "the court finds that the lessee shall pay the rent. "
CODE = "def add(a, b): return a + b. "
GENERIC = "something generic in plain English, of no domain at all, that anybody might say. "

Run = Callable[..., Result]


@pytest.fixture(scope="session")
def run() -> Run:
    """Run a `moehub` command in process; arguments may be paths."""

    def invoke(*arguments: object, stdin: str | None = None) -> Result:
        return CliRunner().invoke(main, [str(one) for one in arguments], input=stdin)

    return invoke


@dataclass(frozen=True)
class Small:
    """A MoE of two experts and everything it was made of."""

    folder: Path
    base: Path
    law: Path
    code: Path
    null: Path
    moe: Path
    text: Path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Small:
    """Merge two experts through the public command."""
    folder = tmp_path_factory.mktemp("small")
    base = tiny_base(folder / "base")
    law = tiny_expert(folder / "law", base, name="law", text=LAW * 30)
    code = tiny_expert(folder / "code", base, name="code", text=CODE * 30, seed=2)
    null, text = folder / "null.txt", folder / "text.txt"
    null.write_text(GENERIC * 20, encoding="utf-8")
    text.write_text((LAW + CODE) * 3, encoding="utf-8")
    result = run("merge", "--base", base, "--expert", law, "--expert", code, "--null", null, "--output", folder / "moe")
    assert result.exit_code == 0, result.output
    return Small(folder, base, law, code, null, folder / "moe", text)


@pytest.fixture(params=["folder", "server"])
def either_hub(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Each kind of hub, empty, with keys and seen versions of this test alone."""
    monkeypatch.setenv("MOEHUB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("MOEHUB_KEYS", str(tmp_path / "keyring"))
    if request.param == "folder":
        yield open_hub(str(tmp_path / "hub"))
        return
    with loopback_hub.running(tmp_path / "root") as server:
        monkeypatch.setenv("MOEHUB_TOKEN", server.token)
        yield open_hub(server.url)
