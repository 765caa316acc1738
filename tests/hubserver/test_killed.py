"""A process that is killed at any of its steps on disk leaves the old or the new, and a retry succeeds."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hubserver import faults, killed
from tests.hubserver.killed import SCENARIOS

pytestmark = pytest.mark.skipif(
    not faults.possible(), reason="system calls are followed on Linux and x86-64 only, where ptrace is allowed"
)
NIGHTLY = bool(os.environ.get("MOEHUB_NIGHTLY"))
EVERY = {"make": 3, "backup": 2, "next backup": 5}
"""Scenario → of how many steps one is tried."""
MEMORY = Path("/dev/shm")  # noqa: S108 (a disk in memory, where fsync costs nothing: a kill cannot tell the difference)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where there is such a disk."""
    folder = Path(tempfile.mkdtemp(dir=MEMORY)) if os.access(MEMORY, os.W_OK) else tmp_path
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def outcomes(program: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.hubserver.{program}", *arguments],
        check=False,
        capture_output=True,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_killed_process_leaves_the_old_or_the_new(scenario: str, workspace: Path) -> None:
    """No fault, the state before or after, once new always new, and a retry brings the new one.

    At every step; of those of the longest scenarios some are tried, and with MOEHUB_NIGHTLY set, each.
    """
    told = outcomes("killed", scenario, str(workspace), "1" if NIGHTLY else str(EVERY.get(scenario, 1)))
    before, after = told["before"], told["after"]
    # A push makes the repo first, by a request of its own.
    between = {"acme/law": None} if scenario == "push" else before
    ages = healthy(told, [before, between, after])
    assert ages == sorted(ages)
    assert ages[-1] > 0 or scenario in EVERY
    assert any("fsync" in step for step, *_ in told["outcomes"])


def healthy(told: dict[str, Any], states: list[Any]) -> list[int]:
    """Check that there was never a fault and that every retry succeeded; return which state each kill left."""
    _, faults_left, left, faults_after, after, litter = zip(*told["outcomes"], strict=True)
    assert told["code"] == 0
    assert states[0] != states[-1]
    assert [fault for found in (*faults_left, *faults_after) for fault in found] == []
    assert [state for state in left if state not in states] == []
    assert [state for state in after if state != states[-1]] == []
    assert [note for found in litter for note in found] == []
    return [states.index(state) for state in left]


@pytest.fixture(scope="module")
def versions(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Two versions of one expert."""
    from tests.builders import tiny_expert

    place = tmp_path_factory.mktemp("versions")
    return str(tiny_expert(place / "old", base_folder)), str(tiny_expert(place / "new", base_folder, seed=2))


@pytest.mark.parametrize(("what", "every"), [("pull", 20), ("push", 2), ("serve", 14)])
def test_both_ends_of_the_wire_survive_a_kill(
    what: str, every: int, workspace: Path, versions: tuple[str, str]
) -> None:
    """A killed pull leaves the older copy or the newer; a killed push or server the repo without or with all of it.

    Of the steps some are tried; with MOEHUB_NIGHTLY set, each.
    """
    told = outcomes("killed_wire", what, str(workspace), *versions, "1" if NIGHTLY else str(every))
    before, after = told["before"], told["after"]
    between = {"acme/law": None} if what == "serve" else before
    healthy(told, [before, between, after])
    assert len(told["outcomes"]) >= 5


def test_bytes_are_on_disk_before_their_name_and_their_name_before_its_row(workspace: Path) -> None:
    """So a power loss leaves bytes without a row, and never a row without its bytes."""
    killed.apart(killed.make, workspace)
    steps = faults.run(lambda: killed.first(workspace), [workspace]).steps
    incoming_folder, blobs, log = (workspace / "hub" / name for name in ("incoming", "blobs", "hub.sqlite3-wal"))
    renamed = [number for number, step in enumerate(steps) if step.startswith(f"rename {incoming_folder}")]
    assert len(renamed) == 2
    for number in renamed:
        incoming = steps[number].removeprefix("rename ")
        about = [step.partition(" ")[0] for step in steps[:number] if step.endswith(incoming)]
        assert about == ["create", "write", "fsync", "chmod"]
        assert steps[number + 1].startswith(f"fsync {blobs}")
        assert steps[number + 2] == f"write {log}"
    assert steps[-1] == f"fsync {log}"
