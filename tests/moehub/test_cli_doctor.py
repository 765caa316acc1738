import importlib.metadata
import json
import time
import tomllib
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from packaging.requirements import Requirement

from moehub import diagnosis, sandbox
from moehub.cli import main
from moehub.diagnosis import Finding
from moehub.errors import SandboxError
from moehub.hub.folder import FolderHub
from moehub.router.backends import BACKENDS, NATIVE, choose, triton
from tests import loopback_hub
from tests.published import paper_expert

CHECKOUT = Path(__file__).parents[2]


@pytest.fixture
def hub(tmp_path: Path) -> FolderHub:
    made = FolderHub(tmp_path / "hub")
    made.push(paper_expert(tmp_path / "law"), "acme/law", message="x")
    return made


def doctor(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def findings(*arguments: str | Path) -> dict[str, Finding]:
    """Return what was found, by name."""
    result = doctor(*arguments, "--json")
    assert result.exit_code == 0
    return {one["name"]: Finding(**one) for one in json.loads(result.stdout)}


def test_everything_that_moehub_needs_is_looked_at(hub: FolderHub) -> None:
    """Each dependency with its version, the backends, the devices, memory, disk and the hub."""
    found = findings("--hub", hub.root)
    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        needed = [Requirement(line).name for line in tomllib.load(file)["project"]["dependencies"]]
    assert {name: importlib.metadata.version(name) for name in needed} == {
        name: one.found for name, one in found.items() if one.topic == "packages"
    }
    backends = {one.name for one in found.values() if one.topic == "backends"}
    assert {NATIVE, *BACKENDS, "auto on cpu", "auto on cuda"} == backends
    assert {"python", "cpu", "memory", "here", "cache", "hub", "token"} <= set(found)
    assert found["hub"].found == f"{hub.location} holds 1 experts"


def test_a_missing_package_is_shown_with_its_cure_and_fails(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only kind of finding that makes the exit code 1."""
    monkeypatch.setattr(diagnosis, "_requirements", lambda: ["no-such-package>=1", "click>=8"])
    result = doctor("--hub", hub.root)
    assert result.exit_code == 1
    assert "MISSING" in result.stdout
    assert "pip install 'no-such-package>=1'" in result.stdout


def test_a_version_that_nobody_tried_is_shown_but_does_not_fail(
    hub: FolderHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may well work."""
    monkeypatch.setattr(diagnosis, "_requirements", lambda: ["click<1", "nothing; python_version < '3'"])
    found = findings("--hub", hub.root)
    assert (found["click"].fine, found["click"].required) == (False, False)
    assert found["click"].cure == "pip install 'click<1'"
    assert "nothing" not in found


def test_an_old_python_fails(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the version that is wanted."""
    monkeypatch.setattr(diagnosis, "_requires_python", lambda: ">=99")
    result = doctor("--hub", hub.root)
    assert (result.exit_code, "install Python >=99" in result.stdout) == (1, True)


def test_an_optional_backend_says_what_it_needs(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it everything works, so it is no failure."""
    monkeypatch.setattr(triton, "installed", lambda: False)
    found = findings("--hub", hub.root)["triton"]
    assert found.found == "not available, needs the package triton"
    assert (found.fine, "pip install triton" in str(found.cure)) == (True, True)


def test_what_auto_would_take_is_shown_with_its_reason(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a CPU and for CUDA; a variable that names what cannot run is a finding."""
    found = findings("--hub", hub.root)
    name, reason = choose("auto", experts=16, rank=16, dtype=torch.bfloat16, device=torch.device("cpu"))
    assert found["auto on cpu"].found == f"{name}: {reason}"
    assert "not measured" in found["auto on cuda"].found
    monkeypatch.setenv("MOEHUB_BACKEND", "fastest")
    found = findings("--hub", hub.root)
    assert (found["auto on cpu"].fine, found["auto on cpu"].cure) == (False, "change or unset MOEHUB_BACKEND")


def test_the_walls_around_strangers_code_are_shown(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are missing too; where nothing would be run, why."""
    found = findings("--hub", hub.root)
    walls = {one.name: one for one in sandbox.protections()}
    assert {name: found[name].found for name in walls} == {
        name: one.found if one.there else f"none: {one.found}" for name, one in walls.items()
    }

    def lack() -> None:
        raise SandboxError("strangers' code is not run on this machine, which lacks seccomp")

    monkeypatch.setattr(sandbox, "protections", lack)
    told = findings("--hub", hub.root)["strangers' code"]
    assert (told.found.endswith("lacks seccomp"), told.fine, "docs/sandbox.md" in str(told.cure)) == (True, True, True)


def test_a_hub_that_is_not_there_is_shown_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders work without one, so it is no failure."""
    monkeypatch.delenv("MOEHUB_TOKEN", raising=False)
    found = findings("--hub", "http://127.0.0.1:9")
    assert not found["hub"].fine
    assert "cannot be reached" in found["hub"].found
    assert "check --hub, MOEHUB_HUB and HF_ENDPOINT (now http://127.0.0.1:9)" in str(found["hub"].cure)
    assert (found["token"].fine, found["token"].cure) == (False, "the variable MOEHUB_TOKEN")


def test_a_hub_that_never_answers_is_left_behind(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name server that is silent blocks longer than any timeout of the client."""
    monkeypatch.setattr(FolderHub, "check", lambda *_: time.sleep(60))
    monkeypatch.setattr(diagnosis, "_HUB_SECONDS", 0.1)
    said, fine = diagnosis._ask(hub)
    assert (said, fine) == (f"{hub.location} does not answer within 0 seconds", False)


def test_a_token_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub says whom it belongs to."""
    with loopback_hub.running(tmp_path / "root") as server:
        monkeypatch.setenv("MOEHUB_TOKEN", server.token)
        found = findings("--hub", server.url)
    assert found["hub"].found == f"{server.url} knows us as alice"
    assert found["token"].fine


def test_a_location_that_is_no_hub_is_a_finding() -> None:
    """Not the end of the examination."""
    found = findings("--hub", "ftp://x")
    assert (found["hub"].fine, found["cpu"].fine) == (False, True)


def test_little_memory_and_disk_are_shown(hub: FolderHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a training finds out."""
    monkeypatch.setattr(diagnosis, "_LOW_MEMORY", 1 << 60)
    monkeypatch.setattr(diagnosis, "_LOW_DISK", 1 << 60)
    found = findings("--hub", hub.root)
    assert not any(found[name].fine for name in ("memory", "here", "cache"))
    assert "HF_HOME" in str(found["cache"].cure)


def test_the_page_fits_eighty_columns(hub: FolderHub) -> None:
    """And shows a cure below what it is for."""
    output = doctor("--hub", hub.root).stdout
    assert max(map(len, output.splitlines())) <= 80
    assert [line for line in output.splitlines() if "torch " in line]
