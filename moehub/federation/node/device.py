"""The device that a node trains on, and the lock that lets one training at a time onto it.

Each device of the machine has a lock of its own, whoever's run it is: a file in a folder of this user, held by the
system, so that it is free again when its holder dies. torch is imported where a device is used, not to name it.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from moehub.console import console
from moehub.errors import FederationError

if TYPE_CHECKING:
    import torch

_SECONDS = 10.0
"""Most that naming a device may take."""


def kind() -> str:
    """Return the kind of accelerator that this machine seems to have, or `cpu`, without asking torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    if not hidden and Path("/dev/nvidiactl").exists():
        return _nvidia() or "cuda"
    if not hidden and Path("/dev/kfd").exists():
        return "rocm"
    return "mps" if sys.platform == "darwin" and os.uname().machine == "arm64" else "cpu"


def _nvidia() -> str:
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        found = subprocess.run(  # noqa: S603 (a fixed command)
            query, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.partition("\n")[0].strip()


def here() -> "torch.device":
    """Return the device that this process trains on."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def name(device: "torch.device") -> str:
    """Return what a person calls a device."""
    if device.type != "cuda":
        return device.type
    import torch

    return torch.cuda.get_device_name(device)


@contextmanager
def held(device: "torch.device") -> Iterator[None]:
    """Keep every other training of this user off `device`; says so once where another one has it.

    Raises:
        FederationError: the folder of the locks belongs to somebody else.
    """
    lock = FileLock(_folder() / f"{_identity(device)}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        console.print(f"waiting for {name(device)}: another training has it", markup=False)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _identity(device: "torch.device") -> str:
    """Return what names the device on this machine, whatever number it has in this process."""
    if device.type != "cuda":
        return device.type
    import torch

    return f"cuda-{torch.cuda.get_device_properties(device).uuid}"


def _folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"moehub-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise FederationError(
            f"{folder} belongs to somebody else, so no device can be locked there: remove it, or set TMPDIR"
        )
    return folder
