"""What this machine has, what it lacks, and how to cure it."""

import importlib.metadata
import importlib.util
import platform
import shutil
import sys
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from moehub.errors import HubError
from moehub.hub import open_hub
from moehub.router.backends import BACKENDS

if TYPE_CHECKING:
    from moehub.hub import Hub

_HUB_SECONDS = 3.0
_LOW_DISK = 5 << 30
_LOW_MEMORY = 4 << 30
_GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    """`python`, `packages`, `devices`, `memory`, `disk`, `backends` or `hub`."""
    name: str
    """What was looked at."""
    found: str
    """What it is like."""
    fine: bool
    """Whether nothing is to be done."""
    cure: str | None = None
    """What to do about it, where anything can be done."""
    required: bool = False
    """Whether moehub cannot work without."""


def diagnose(hub: str | None) -> list[Finding]:
    """Return everything that was found; the only machine that is asked is the hub, for a few seconds."""
    return [*_python(), *_packages(), *_devices(), *_room(), *_backends(), *_hub(hub)]


def _python() -> Iterator[Finding]:
    wanted, version = _requires_python(), platform.python_version()
    fine = SpecifierSet(wanted).contains(version, prereleases=True)
    yield Finding(
        "python",
        "python",
        f"{version} in {sys.prefix}",
        fine,
        None if fine else f"install Python {wanted}",
        required=True,
    )


def _packages() -> Iterator[Finding]:
    for text in _requirements():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        cure = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("packages", requirement.name, "missing", fine=False, cure=cure, required=True)
            continue
        fine = requirement.specifier.contains(version, prereleases=True)
        found = version if fine else f"{version}, tried with {requirement.specifier}"
        yield Finding("packages", requirement.name, found, fine, None if fine else cure)


def _requires_python() -> str:
    try:
        return importlib.metadata.metadata("moehub")["Requires-Python"] or ""
    except importlib.metadata.PackageNotFoundError:
        return str(_project()["requires-python"])


def _requirements() -> list[str]:
    """Return our own requirements: of the installed package, or of the checkout."""
    try:
        return importlib.metadata.requires("moehub") or []
    except importlib.metadata.PackageNotFoundError:
        return list(_project()["dependencies"])  # type: ignore[call-overload]


def _project() -> dict[str, object]:
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    project: dict[str, object] = tomllib.loads(text)["project"]
    return project


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding("devices", "cpu", f"{platform.machine()}, {torch.get_num_threads()} threads", fine=True)
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = f"{properties.total_memory / _GIB:.0f} GiB"
        yield Finding("devices", f"cuda:{index}", f"{properties.name}, {memory}", fine=True)
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", "Apple GPU", fine=True)
    elif not torch.cuda.device_count():
        built = torch.version.cuda is not None
        cure = "check the driver with nvidia-smi" if built else "on a machine with one, install torch's CUDA build"
        yield Finding("devices", "gpu", "none: everything works, training is slower", fine=True, cure=cure)


def _room() -> Iterator[Finding]:
    import psutil
    from huggingface_hub.constants import HF_HOME

    memory = psutil.virtual_memory()
    found, fine = f"{memory.available / _GIB:.1f} of {memory.total / _GIB:.1f} GiB free", memory.available > _LOW_MEMORY
    yield Finding("memory", "memory", found, fine, None if fine else "close other programs, or use a small base")
    for name, path in (("here", Path.cwd()), ("cache", Path(HF_HOME).expanduser())):
        place = next(parent for parent in (path, *path.parents) if parent.is_dir())
        free = shutil.disk_usage(place).free
        cure = "free some space" if name == "here" else "free some space, or set HF_HOME to a larger disk"
        found = f"{free / _GIB:.0f} GiB free in {path}"
        yield Finding("disk", name, found, free > _LOW_DISK, None if free > _LOW_DISK else cure)


def _backends() -> Iterator[Finding]:
    for name in BACKENDS:
        yield Finding("backends", name, "available", fine=True)
    import torch

    lacking = [
        lack
        for lack, absent in (
            ("a CUDA device", not torch.cuda.is_available()),
            ("the package megablocks or kernels", not (_installed("megablocks") or _installed("kernels"))),
        )
        if absent
    ]
    found = f"not available, needs {' and '.join(lacking)}" if lacking else "can be loaded"
    cure = "optional; on a CUDA machine: pip install kernels (the package megablocks on PyPI pins an older torch)"
    yield Finding("backends", "megablocks", found, fine=True, cure=cure if lacking else None)


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _hub(location: str | None) -> Iterator[Finding]:
    try:
        hub = open_hub(location)
    except HubError as error:
        yield Finding("hub", "hub", str(error), fine=False, cure="name another with --hub or MOEHUB_HUB")
        return
    said, fine = _ask(hub)
    cure = f"check --hub, MOEHUB_HUB and HF_ENDPOINT (now {hub.location}); folders work without a hub"
    yield Finding("hub", "hub", said, fine, None if fine else cure)
    token = hub.token_cure()
    yield Finding("hub", "token", "none: needed to push" if token else "not needed, or there", token is None, token)


def _ask(hub: "Hub") -> tuple[str, bool]:
    """Return what a hub says and whether it is fine; never wait longer than a little over the timeout."""
    answers: list[tuple[str, bool]] = []

    def ask() -> None:
        try:
            answers.append((hub.check(_HUB_SECONDS), True))
        except (HubError, OSError) as error:
            answers.append((str(error), False))

    # A name that nobody resolves can block for longer than any timeout of ours: then it is left behind.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_HUB_SECONDS + 1)
    return answers[0] if answers else (f"{hub.location} does not answer within {_HUB_SECONDS:.0f} seconds", False)
