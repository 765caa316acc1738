import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from moehub.errors import FederationError
from moehub.federation.node import device

CPU: Any = SimpleNamespace(type="cpu")
_HOLD = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from moehub.federation.node import device

with device.held(SimpleNamespace(type="cpu")):
    mark = Path(sys.argv[1])
    mark.mkdir()  # fails where another one is inside
    time.sleep(float(sys.argv[2]))
    mark.rmdir()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the locks of tests apart from those of this machine."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def _start(mark: Path, seconds: float) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _HOLD, str(mark), str(seconds)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_two_processes_never_hold_a_device_at_once(temporary: Path) -> None:
    """The second waits, and says so once."""
    processes = [_start(temporary / "inside", 1.5) for _ in range(2)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(said) == ["", "waiting for cpu: another training has it\n"]


def test_device_is_free_again_when_its_holder_is_killed(temporary: Path) -> None:
    """The system holds the lock, so nothing is left to clean up."""
    with _start(temporary / "inside", 60) as holder:
        while not (temporary / "inside").exists():
            time.sleep(0.02)
        holder.kill()
    with device.held(CPU):
        pass


def test_devices_are_held_apart(temporary: Path) -> None:
    """Who trains on one does not wait for the other."""
    with device.held(CPU), device.held(SimpleNamespace(type="mps")):  # type: ignore[arg-type]
        assert len(list(temporary.rglob("*.lock"))) == 2


def test_folder_of_the_locks_is_the_users_own(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a shared temporary folder, whoever was there first could keep everybody waiting."""
    with device.held(CPU):
        folder = temporary / f"moehub-{os.getuid()}"
        assert folder.stat().st_mode & 0o777 == 0o700
    stranger = os.getuid() + 1
    (temporary / f"moehub-{stranger}").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    with (
        pytest.raises(FederationError, match="belongs to somebody else, so no device can be locked there"),
        device.held(CPU),
    ):
        pass


@pytest.mark.parametrize(
    ("answer", "expected"), [("#!/bin/sh\necho 'NVIDIA H200'\n", "NVIDIA H200"), ("#!/bin/sh\nexit 9\n", "cuda")]
)
def test_nvidia_device_is_named(temporary: Path, monkeypatch: pytest.MonkeyPatch, answer: str, expected: str) -> None:
    """By the driver's own program, or by its kind where that fails."""
    (temporary / "nvidia-smi").write_text(answer)
    (temporary / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(temporary), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Path, "exists", lambda path: str(path) == "/dev/nvidiactl")
    assert device.kind() == expected


def test_hidden_devices_are_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who hides them trains on the CPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(Path, "exists", lambda path: str(path).startswith("/dev/"))
    monkeypatch.setattr(sys, "platform", "linux")
    assert device.kind() == "cpu"


def test_this_process_trains_where_torch_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU where there is nothing else."""
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)
    assert (device.here(), device.name(device.here())) == (torch.device("cpu"), "cpu")
