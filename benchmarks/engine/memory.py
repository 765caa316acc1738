"""What experts take in memory: 64 of them all in use, and 1,000 of which only some may stay.

The first rows compare processes: one with the base alone, one with the MoE, after a forward that used every expert.
The others bring experts to memory that were put back, from the page cache and from the disk. Linux only.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.engine import Row, world
from moehub.router.route import Route

_EXPERTS, _MANY, _LAYERS_OF_MANY = 64, 1000, 4
_MIB = 2**20


def measure(turns: int) -> list[Row]:
    """Return the rows of memory."""
    with tempfile.TemporaryDirectory() as scratch:
        return [*_all_in_use(Path(scratch) / "all"), *_bounded(Path(scratch) / "many", turns)]


def _all_in_use(folder: Path) -> list[Row]:
    files = world.write_experts(folder, world.base(torch.bfloat16), _EXPERTS)
    of_experts = sum(file.stat().st_size for file in files)
    plain, _ = _process("base", folder)
    moe, of_base = _process("moe", folder)
    ratio = (moe - plain + of_base) / (of_base + of_experts)
    case = f"{_EXPERTS} experts, bfloat16, all of them used"
    held = f"base {of_base / _MIB:.0f} MiB, experts {of_experts / _MIB:.0f} MiB, MoE − base {(moe - plain) / _MIB:.0f}"
    return [Row("memory: of base + experts", case, f"{ratio:.3f}", "≤ 1.05", held)]


def _process(what: str, folder: Path) -> tuple[int, int]:
    """Return the bytes in memory of a process that used a model, and those of its base."""
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.engine.memory", what, str(folder)]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
    return int(said[-2]), int(said[-1])


@torch.no_grad()
def _use(what: str, folder: Path) -> None:
    torch.set_num_threads(1)
    plain, files = world.base(torch.bfloat16), sorted(folder.glob("*.safetensors"))
    # Counting text takes more memory than the gate that comes of it: both processes do it, and the gate's own
    # bytes are added to the MoE's.
    made = world.gate(len(files))
    of_gate = sum(one.numel() * one.element_size() for one in made.state_dict().values())
    if what == "moe":
        model = world.moe(plain, world.mapped(files), made)
        everyone = Route(torch.arange(256)[:, None] % len(files), torch.ones(256, 1), len(files))
        _reached(model, everyone)
    else:
        of_gate = 0
        plain(input_ids=world.draw(0, world.VOCABULARY, 1, 256), use_cache=False)
    of_base = sum(one.numel() * one.element_size() for one in plain.parameters())
    print(_resident() + of_gate, of_base)


def _reached(model: "torch.nn.Module", route: Route) -> None:
    """Run a forward in which the route is this one."""
    from moehub.router.gate import Shared

    model.gate.routing = lambda _: Shared(route)  # type: ignore[union-attr]
    model(input_ids=world.draw(0, world.VOCABULARY, 1, len(route.indices)), use_cache=False)


def _resident() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this system does not say what a process holds in memory")


@torch.no_grad()
def _bounded(folder: Path, turns: int) -> list[Row]:
    torch.set_num_threads(1)
    base = world.base(torch.bfloat16, layers=_LAYERS_OF_MANY)
    files = world.write_experts(folder, base, _MANY)
    size = files[0].stat().st_size
    limit = 64 * size
    begin = time.perf_counter()
    adapters = world.mapped(files)
    from moehub.merge.stack import shelve
    from moehub.router.layer import Switchboard

    _, shelf = shelve(world.twin(base), adapters, Switchboard(), base.dtype, limit=limit)
    opened, before, peak = time.perf_counter() - begin, _resident(), 0
    generator = torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {"page cache": [], "disk": []}
    for kind, taken in seconds.items():
        for _ in range(20 * turns):
            expert = int(torch.randint(_MANY, (), generator=generator))
            if kind == "disk":
                _forget(files[expert])
            route = Route(torch.tensor([[expert]]), torch.ones(1, 1), _MANY)
            held, start = shelf.usage.brought, time.perf_counter()
            shelf.ready(route)
            if shelf.usage.brought > held:
                taken.append(time.perf_counter() - start)
            peak = max(peak, _resident())
    case = f"{_MANY} experts of {size / _MIB:.1f} MiB, {limit / _MIB:.0f} MiB may stay"
    return [
        Row("memory: experts held, peak", case, f"{(peak - before) / _MIB:.0f} MiB", f"≤ {limit / _MIB:.0f} + one", ""),
        Row("memory: opening all", case, f"{opened:.2f} s", "", f"{1e6 * opened / _MANY:.0f} µs an expert"),
        *(Row(f"memory: a miss, {kind}", case, _spread(taken, size), "", "") for kind, taken in seconds.items()),
    ]


def _spread(seconds: Sequence[float], size: int) -> str:
    ordered = sorted(1000 * one for one in seconds)
    median = ordered[len(ordered) // 2]
    return f"{median:.2f} ms [{ordered[0]:.2f}, {ordered[-1]:.2f}], {size / _MIB / median:.1f} GiB/s"


def _forget(file: Path) -> None:
    """Drop a file from the page cache."""
    descriptor = os.open(file, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


if __name__ == "__main__":
    _use(sys.argv[1], Path(sys.argv[2]))
