"""A plain checkout works anywhere, also beside a stranger's files of our folders' names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
STRANGERS = ("router.py", "merge.py", "experts.py", "hub.py", "cli.py", "card.py")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder whose files must not be run."""
    for name in STRANGERS:
        (tmp_path / name).write_text(f"raise SystemExit('a stranger ran: {name}')\n")
    return tmp_path


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", ["", "push", "pull", "list", "inspect", "doctor"])
def test_help_works_in_a_folder_of_strangers(hostile: Path, command: str) -> None:
    """Python puts the working directory first in its path, and people have files of these names."""
    done = run("-m", "moehub", *command.split(), "--help", cwd=hostile)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: ")


def test_every_room_is_ours_in_a_folder_of_strangers(hostile: Path) -> None:
    """Also the rooms that import torch, in whatever order they come."""
    script = "import moehub.router.posterior, moehub.experts.folder, moehub.merge.lock; print('ours')"
    done = run("-W", "ignore", "-c", script, cwd=hostile)
    assert (done.returncode, done.stdout) == (0, "ours\n")


@pytest.mark.parametrize("module", ["moehub.merge.model", "moehub.merge.load"])
def test_a_room_can_be_entered_by_any_door(tmp_path: Path, module: str) -> None:
    """Transformers is told about the MoE while its own modules are imported: that must not go in circles."""
    done = run("-W", "ignore", "-c", f"import {module}", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    """Pyproject and the code say the same."""
    import tomllib

    with (CHECKOUT / "pyproject.toml").open("rb") as file:
        version = tomllib.load(file)["project"]["version"]
    assert run("-m", "moehub", "--version", cwd=tmp_path).stdout == f"moehub, version {version}\n"
