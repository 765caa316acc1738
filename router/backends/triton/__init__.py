"""The sparse layer in kernels of our own for CUDA: A and B in one pass each, nothing that waits for the host."""

import importlib.util

import torch
from torch import Tensor

from moehub.router.backends.need import Need
from moehub.router.backends.triton.interpreter import interpreted
from moehub.router.route import Route

FEW = 32
"""Up to so many tokens are computed token by token, without sorting; not yet timed on a GPU."""


def triton(x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    """Return what `loop` returns; the work grows with the number of active pairs."""
    from moehub.router.backends.triton import gradient, launch

    if not len(x):
        return y
    leaves = (x, y, A, B, scale, route.weights)
    if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves):
        return gradient.differentiable(x, y, route.indices, route.weights, route.tiles, A=A, B=B, scale=scale)
    if len(x) <= FEW:
        return launch.few(x, y, route.indices, route.weights, A=A, B=B, scale=scale)
    inner = launch.shrink(x, A, route.tiles, zeroed=False)
    return launch.expand(y, inner, B, route.weights, scale, route.tiles)


def need(device: torch.device) -> Need | None:
    """Return what is missing to run this on a device, or None."""
    if not installed():
        return Need("the package triton", "pip install triton (torch's CUDA builds for Linux bring it)")
    if device.type != "cuda" and not interpreted():
        return Need("a CUDA device", "load the model with device_map='cuda', or take backend='auto'")
    return None


def installed() -> bool:
    """Return whether triton can be imported."""
    return importlib.util.find_spec("triton") is not None
