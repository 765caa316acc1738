"""What this machine has, what it lacks, and how to cure it."""

import importlib.metadata
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

from moehub.errors import HubError, RouterError, SandboxError
from moehub.hub import open_hub
from moehub.router.backends import AUTO, BACKENDS, NATIVE, VARIABLE, choose, missing, native_lacks

if TYPE_CHECKING:
    import torch

    from moehub.hub import Hub

_HUB_SECONDS = 3.0
_LOW_DISK = 5 << 30
_LOW_MEMORY = 4 << 30
_GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    topic: str
    """`python`, `packages`, `devices`, `memory`, `disk`, `backends`, `sandbox` or `hub`."""
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
    return [*_python(), *_packages(), *_devices(), *_room(), *_backends(), *_sandbox(), *_hub(hub)]


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
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lack = native_lacks(torch.bfloat16, torch.device("cpu"))
    yield Finding("backends", NATIVE, "available" if lack is None else f"not available: {lack}", fine=True)
    for name in BACKENDS:
        need = missing(name, device)
        found = "available" if need is None else f"not available, needs {need.what}"
        yield Finding("backends", name, found, fine=True, cure=None if need is None else f"optional: {need.cure}")
    for kind in ("cpu", "cuda"):
        yield _chosen(torch.device(kind), torch.bfloat16)


def _chosen(device: "torch.device", dtype: "torch.dtype") -> Finding:
    """Return what `auto` takes on a device for a MoE of sixteen experts of rank 16."""
    name = f"auto on {device.type}"
    try:
        chosen, reason = choose(AUTO, experts=16, rank=16, dtype=dtype, device=device)
    except RouterError as error:
        return Finding("backends", name, str(error), fine=False, cure=f"change or unset {VARIABLE}")
    return Finding("backends", name, f"{chosen}: {reason}", fine=True)


def _sandbox() -> Iterator[Finding]:
    from moehub import sandbox

    try:
        walls = sandbox.protections()
    except SandboxError as error:
        cure = "optional: the reward `unit-tests` needs it (docs/sandbox.md)"
        yield Finding("sandbox", "strangers' code", str(error), fine=True, cure=cure)
        return
    for wall in walls:
        yield Finding("sandbox", wall.name, wall.found if wall.there else f"none: {wall.found}", fine=True)


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
