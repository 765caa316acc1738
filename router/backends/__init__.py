"""Ways to compute the sparse layer, and the choice between them.

Those for stacked experts stand behind the signature of `loop`:

    backend(x [T, d_in], y [T, d_out], route, *, A [E, r, d_in], B [E, r, d_out], scale [E]) -> [T, d_out]

`native` reads experts from the files that they came in (`moehub.router.native`).
"""

import os
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from moehub.errors import RouterError
from moehub.router.backends import megablocks as _megablocks
from moehub.router.backends import triton as _triton
from moehub.router.backends.dense import dense
from moehub.router.backends.gather import gather
from moehub.router.backends.grouped import grouped
from moehub.router.backends.loop import loop
from moehub.router.backends.need import Need
from moehub.router.route import Route

AUTO = "auto"
NATIVE = "native"
VARIABLE = "MOEHUB_BACKEND"
"""The environment variable that names what `auto` is to be."""


class Backend(Protocol):
    """Adds the experts' contributions to a linear's output."""

    def __call__(self, x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
        """Return y + Σ_e g_e·s_e·(x A_eᵀ) B_e."""


BACKENDS: dict[str, Backend] = {
    "loop": loop,
    "dense": dense,
    "grouped": grouped,
    "gather": gather,
    "triton": _triton.triton,
    "megablocks": _megablocks.megablocks,
}
NEEDS: dict[str, Callable[[torch.device], Need | None]] = {
    "triton": _triton.need,
    "megablocks": _megablocks.need,
}
"""What those that do not run everywhere need on a device, and this machine does not have."""

_DENSE_UP_TO = {
    ("cpu", torch.float32): 64,
    ("cpu", torch.bfloat16): 256,
    ("cpu", torch.float16): 256,
}
"""Largest E·r at which `dense` was the faster one for a prefill (see benchmarks/RESULTS.md, stacked experts)."""
_DENSE_UP_TO_ELSEWHERE = 256


def names() -> tuple[str, ...]:
    """Return what `--backend` can be, `auto` left out."""
    return (NATIVE, *BACKENDS)


def missing(name: str, device: torch.device) -> Need | None:
    """Return what a backend for stacked experts needs to run on a device and does not find, or None."""
    return NEEDS[name](device) if name in NEEDS else None


def runnable(device: torch.device) -> list[str]:
    """Return the names of the backends for stacked experts that run on a device of this machine."""
    return [name for name in BACKENDS if missing(name, device) is None]


def native_lacks(dtype: torch.dtype, device: torch.device) -> str | None:
    """Return why the compiled kernel cannot be used, or None: it can, and is compiled now if it was not yet."""
    from moehub.router.native import library
    from moehub.router.native.compiler import library as compiled

    if device.type != "cpu":
        return f"it is for CPUs, not for {device.type}"
    if dtype not in library.DTYPES:
        return f"it multiplies {' and '.join(str(one) for one in library.DTYPES)}, not {dtype}"
    try:
        compiled()
    except RouterError as error:
        return str(error)
    return None


def choose(
    name: str, *, experts: int, rank: int, dtype: torch.dtype, device: torch.device, trainable: bool = False
) -> tuple[str, str]:
    """Return the name of the backend to use and the reason.

    Args:
        name: a backend, or `auto`, which the variable MOEHUB_BACKEND decides where it is set.
        experts: E.
        rank: the largest rank of an expert.
        dtype: of the base.
        device: of the base.
        trainable: whether the experts are to be trained, for which they must be stacked.

    Raises:
        RouterError: there is no backend of that name, or it cannot be used here.
    """
    name, reason = _asked_for(name)
    lack = "they are to be trained, and it only reads experts" if trainable else native_lacks(dtype, device)
    if name == NATIVE and lack is not None:
        raise RouterError(f"the backend 'native' cannot be used here: {lack}. Leave it out, or name another")
    if (need := missing(name, device)) is not None:
        raise RouterError(f"the backend {name!r} cannot run on {device}, it needs {need.what}: {need.cure}")
    if name != AUTO:
        return name, reason
    if lack is None:
        return NATIVE, f"compiled for this CPU, {dtype}"
    if device.type == "cuda":
        return _on_cuda(experts, rank, device)
    return _stacked(experts, rank, dtype, device, lack)


def _asked_for(name: str) -> tuple[str, str]:
    reason = "asked for by name"
    if name == AUTO and (named := os.environ.get(VARIABLE)):
        name, reason = named, f"asked for by {VARIABLE}"
    if name in (AUTO, *names()):
        return name, reason
    raise RouterError(
        f"there is no backend {name!r}, expected {', '.join((AUTO, *names()))}: `moehub doctor` lists them"
    )


def _on_cuda(experts: int, rank: int, device: torch.device) -> tuple[str, str]:
    """Return a choice that nobody has measured yet; `python -m benchmarks.gpu` does on a machine with a GPU."""
    size = f"{experts} experts × rank {rank} = {experts * rank}"
    need = missing("triton", device)
    if need is None:
        return "triton", f"a default for CUDA that was not measured yet, {size}"
    best, sign = ("dense", "≤") if experts * rank <= _DENSE_UP_TO_ELSEWHERE else ("gather", ">")
    return best, f"{size} {sign} {_DENSE_UP_TO_ELSEWHERE}, not measured yet on CUDA; triton needs {need.what}"


def _stacked(experts: int, rank: int, dtype: torch.dtype, device: torch.device, lack: str) -> tuple[str, str]:
    limit = _DENSE_UP_TO.get((device.type, dtype), _DENSE_UP_TO_ELSEWHERE)
    size = f"{experts} experts × rank {rank} = {experts * rank}"
    without = f"; not native: {lack}" if device.type == "cpu" else ""
    if experts * rank <= limit:
        return "dense", f"{size} ≤ {limit} on {device.type} in {dtype}{without}"
    return "grouped", f"{size} > {limit} on {device.type} in {dtype}{without}"
