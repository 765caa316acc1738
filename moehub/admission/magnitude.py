"""How large matrices are: an update s·B·A without ever making it, and the weights of a base.

For A [r, d_in] and B [d_out, r] with B = Q_B·R_B and Aᵀ = Q_A·R_A, the product B·A has the singular values of the small
matrix R_B·R_Aᵀ.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from moehub.base import Base

_ITERATIONS = 12
_SUFFIX = ".weight"


@dataclass(frozen=True)
class Magnitude:
    """How large a matrix is."""

    shape: tuple[int, int]
    """(d_out, d_in)."""
    norm: float
    """Frobenius."""
    spectrum: float
    """The largest singular value."""


def of_update(A: Tensor, B: Tensor, scale: float) -> Magnitude:
    """Return the magnitude of scale·B·A, for A [r, d_in] and B [d_out, r]."""
    small = torch.linalg.qr(B.double()).R @ torch.linalg.qr(A.double().T).R.T
    values = torch.linalg.svdvals(small) * abs(scale)
    return Magnitude((B.shape[0], A.shape[1]), float(values.norm()), float(values.max()))


def of_rows(lengths: Tensor, shape: tuple[int, int]) -> Magnitude:
    """Return the least magnitude of a matrix of this shape whose rows have these lengths, [d_out]."""
    return Magnitude(shape, float(lengths.double().norm()), float(lengths.abs().max()))


def of_weight(base: Base, linear: str) -> Magnitude | None:
    """Return the magnitude of a linear's weight in a base, or None where none of its name and of plain floats is.

    Each weight is read once in the life of the process.
    """
    places, parts = _places(base.folder), linear.split(".")
    # Some bases are saved without the name of the module that holds the layers.
    names = (".".join(parts[begin:]) + _SUFFIX for begin in range(len(parts)))
    place = next((places[name] for name in names if name in places), None)
    return None if place is None else _measured(*place)


@lru_cache(maxsize=2)
def _places(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return the tensors of a base by name, with the file that each is in."""
    found: dict[str, tuple[Path, str]] = {}
    for shard in sorted(folder.glob("*.safetensors")):
        with safe_open(shard, framework="pt") as file:
            found |= {name: (shard, name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    return found


@lru_cache(maxsize=8192)
def _measured(shard: Path, name: str) -> Magnitude | None:
    with safe_open(shard, framework="pt") as file:
        weight = file.get_tensor(name)
    if weight.ndim != 2 or not weight.is_floating_point():
        return None
    weight = weight.float()
    direction = torch.ones(weight.shape[1])
    for _ in range(_ITERATIONS):
        image = weight @ (direction / direction.norm())
        direction = weight.T @ image
    return Magnitude((weight.shape[0], weight.shape[1]), float(weight.norm()), float(image.norm()))
