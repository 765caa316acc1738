"""The sparse layer out of MegaBlocks' own operations: sort, gather, two grouped multiplications, scatter; unpadded.

MegaBlocks knows no inactive pairs, so those are computed too, with a weight of zero.
"""

import importlib.util

import torch
from torch import Tensor

from moehub.router.backends.need import Need
from moehub.router.backends.triton.interpreter import interpreted
from moehub.router.route import Route


def megablocks(x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
    """Return what `loop` returns; the work grows with T·K, and the host waits for the counts of each expert.

    Raises:
        RouterError: MegaBlocks cannot be loaded.
    """
    from moehub.router.backends.megablocks.library import load

    if not len(x):
        return y
    library, slots = load(), route.indices.shape[1]
    chosen = route.indices.flatten().int()
    experts_S, order_S = library.ops.sort(chosen, max((route.experts - 1).bit_length(), 1))
    counts_E = library.ops.histogram(chosen, route.experts)
    ends_E = library.ops.inclusive_cumsum(counts_E, 0).view(-1)
    sizes = counts_E.cpu().long()
    inner = library.gmm(library.ops.gather(x.contiguous(), order_S, experts_S, ends_E, slots), A, sizes, trans_b=True)
    outer = library.gmm(inner * scale[experts_S.long()].to(x.dtype)[:, None], B, sizes)
    weights = route.weights.flatten().to(x.dtype)
    return y + library.ops.scatter(outer, order_S, experts_S, weights, ends_E, slots)


def need(device: torch.device) -> Need | None:
    """Return what is missing to run this on a device, or None."""
    if not installed("triton"):
        return Need("the package triton", "pip install triton (torch's CUDA builds for Linux bring it)")
    if not (installed("megablocks") or installed("kernels")):
        return Need("the package megablocks or kernels", "docs/backends.md has the commands")
    if device.type != "cuda" and not interpreted():
        return Need("a CUDA device", "load the model with device_map='cuda', or take backend='auto'")
    return None


def installed(package: str) -> bool:
    """Return whether a package can be imported."""
    return importlib.util.find_spec(package) is not None
