"""Ways to compute the sparse layer, all behind the signature of `loop`.

backend(x [T, d_in], y [T, d_out], route, *, A [E, r, d_in], B [E, r, d_out], scale [E]) -> [T, d_out]
"""

from typing import Protocol

import torch
from torch import Tensor

from moehub.errors import RouterError
from moehub.router.backends.dense import dense
from moehub.router.backends.grouped import grouped
from moehub.router.backends.loop import loop
from moehub.router.route import Route

AUTO = "auto"


class Backend(Protocol):
    """Adds the experts' contributions to a linear's output."""

    def __call__(self, x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
        """Return y + Σ_e g_e·s_e·(x A_eᵀ) B_e."""


BACKENDS: dict[str, Backend] = {"loop": loop, "dense": dense, "grouped": grouped}

_DENSE_UP_TO = {
    ("cpu", torch.float32): 64,
    ("cpu", torch.bfloat16): 256,
    ("cpu", torch.float16): 256,
}
"""Largest E·r at which `dense` was the faster one for a prefill; `python -m benchmarks.layer` measures it."""
_DENSE_UP_TO_ELSEWHERE = 256


def choose(name: str, *, experts: int, rank: int, dtype: torch.dtype, device: torch.device) -> tuple[str, str]:
    """Return the name of the backend to use and the reason.

    Raises:
        RouterError: there is no backend of that name.
    """
    if name != AUTO:
        if name not in BACKENDS:
            raise RouterError(
                f"there is no backend {name!r}, expected auto, {', '.join(BACKENDS)}: `moehub doctor` lists them"
            )
        return name, "asked for by name"
    limit = _DENSE_UP_TO.get((device.type, dtype), _DENSE_UP_TO_ELSEWHERE)
    size = f"{experts} experts × rank {rank} = {experts * rank}"
    if experts * rank <= limit:
        return "dense", f"{size} ≤ {limit} on {device.type} in {dtype}"
    return "grouped", f"{size} > {limit} on {device.type} in {dtype}"
