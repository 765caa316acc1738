"""MegaBlocks, wherever it comes from: the package on PyPI, or the kernel on the Hugging Face Hub."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from moehub.errors import RouterError
from moehub.router.backends.megablocks import installed, operations
from moehub.router.backends.triton.interpreter import interpreted

HUB_KERNEL, HUB_VERSION = "kernels-community/megablocks", 1
_COPIES = ("_padded_copy", "_padded_copy_wgrad", "_binned_copy", "_binned_copy_wgrad")


@dataclass(frozen=True)
class Library:
    """What we use of MegaBlocks."""

    source: str
    """Where it comes from, and which parts of it are ours."""
    ops: Any
    """`sort`, `histogram`, `inclusive_cumsum`, `gather` and `scatter`."""
    multiply: Callable[..., Tensor]
    """Its grouped multiplication, or ours."""
    dMoE: Any  # noqa: N815 (MegaBlocks' name)
    """The layer of dense experts."""
    arguments: Any
    """The layer's arguments."""

    def gmm(self, rows: Tensor, matrices: Tensor, sizes: Tensor, *, trans_b: bool = False) -> Tensor:
        """Multiply groups of rows by their matrices; MegaBlocks' CUTLASS code knows bfloat16 alone, we do the rest.

        Args:
            rows: [S, m].
            matrices: [E, m, n], with `trans_b` [E, n, m].
            sizes: rows of each group, int64 [E] on the CPU.
            trans_b: whether the matrices are transposed.
        """
        multiply = self.multiply if rows.dtype == torch.bfloat16 else operations.gmm
        return multiply(rows, matrices, sizes, trans_b=trans_b)


@functools.cache
def load() -> Library:
    """Return MegaBlocks: the package where it is installed, else the Hub's kernel, which is fetched at the first use.

    Raises:
        RouterError: neither can be loaded.
    """
    try:
        return _package() if installed("megablocks") else _hub()
    except RouterError:
        raise
    except Exception as error:  # what a build for another torch raises is anybody's guess
        raise RouterError(
            f"MegaBlocks cannot be loaded ({type(error).__name__}: {error}): install it as docs/backends.md says"
        ) from error


def _package() -> Library:
    """Return the package, with our operations where its extensions were not built."""
    ours = [name for name in ("megablocks_ops", "grouped_gemm") if name not in sys.modules and not installed(name)]
    if "megablocks_ops" in ours:
        sys.modules["megablocks_ops"] = operations
    if "grouped_gemm" in ours:
        functions = SimpleNamespace(gmm=operations.gmm)
        sys.modules["grouped_gemm"] = SimpleNamespace(ops=functions, backend=None)  # type: ignore[assignment]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it was written for an older torch
        package = importlib.import_module("megablocks")
    if interpreted():  # nothing can be timed, so the first configuration is as good as any
        kernels = importlib.import_module("megablocks.backend.kernels")
        for copy in (getattr(kernels, name) for name in _COPIES):
            copy.configs = copy.configs[:1]
    gmm = importlib.import_module("grouped_gemm").ops.gmm
    source = f"megablocks {importlib.import_module('megablocks._version').__version__}"
    source += f" without {' and '.join(ours)}" if ours else ""
    return Library(source, importlib.import_module("megablocks.ops"), gmm, package.dMoE, package.Arguments)


def _hub() -> Library:
    """Return the Hub's kernel in the one version that was looked at."""
    if not installed("kernels"):
        raise RouterError("MegaBlocks is not installed: docs/backends.md has the commands")
    kernel = importlib.import_module("kernels").get_kernel(HUB_KERNEL, version=HUB_VERSION)
    return Library(f"{HUB_KERNEL}, version {HUB_VERSION}", kernel.ops, kernel.gg_ops.gmm, kernel.dMoE, kernel.Arguments)
