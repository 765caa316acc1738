"""A process that is killed at any of its steps on disk leaves the old or the new, and a retry succeeds."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hubserver import faults, killed
from tests.hubserver.killed import SCENARIOS

pytestmark = pytest.mark.skipif(not faults.possible(), reason="system calls are followed on Linux and x86-64 only")
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
    """At every step: no fault, the state before or after, once new always new, and a retry brings the new one."""
    told = outcomes("killed", scenario, str(workspace))
    steps, codes, faults_, states, faults_after, states_after, litter = zip(*told["outcomes"], strict=True)
    before, after = told["before"], told["after"]
    between = (
        {"acme/law": None} if scenario == "push" else before
    )  # a push makes the repo first, by a request of its own
    assert before != after
    assert set(codes) == {-signal.SIGKILL}
    assert [fault for found in faults_ for fault in found] == []
    ages = [[before, between, after].index(state) for state in states]
    assert ages == sorted(ages)
    assert ages[-1] > 0
    assert any("fsync" in step for step in steps)
    assert [fault for found in faults_after for fault in found] == []
    assert [state for state in states_after if state != after] == []
    assert [note for found in litter for note in found] == []


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
