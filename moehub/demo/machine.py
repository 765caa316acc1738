"""What the demo ran on: processor, memory and library versions, and nothing that names the machine or its owner."""

import importlib.metadata
import os
import platform
from pathlib import Path

_LIBRARIES = ("torch", "transformers", "peft", "trl", "tokenizers", "safetensors", "huggingface-hub")


def versions() -> dict[str, str]:
    """Return the versions of Python, moehub and the libraries that train and measure."""
    from moehub import __version__

    found = {"python": platform.python_version(), "moehub": __version__}
    return found | {name: importlib.metadata.version(name) for name in _LIBRARIES}


def hardware() -> dict[str, str | int | float]:
    """Return processor, usable cores, memory in GiB, and the accelerator where there is one."""
    found: dict[str, str | int | float] = {
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.machine()}",
    }
    import torch

    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> float:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError):
        return 0.0
