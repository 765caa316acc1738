"""An adapter as it travels: PEFT's tensor names → float32 arrays, without torch.

Shapes, for a linear of d_in inputs and d_out outputs: `lora_A.weight` [r, d_in], `lora_B.weight` [d_out, r]; the
adapter adds (alpha / r) · B · A.
"""

import hashlib
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Weights: TypeAlias = dict[str, Array]
"""Tensor name → values."""
A = ".lora_A.weight"
B = ".lora_B.weight"
"""How the names of the two factors of a linear end."""


def initial(shapes: Mapping[str, tuple[int, int]], seed: int) -> Weights:
    """Return the adapter that training begins with, the same to the bit on every machine.

    A is uniform in ±1/√d_in, as PEFT's default (Kaiming with a = √5); B is zero, so nothing changes at first.
    Each tensor has a counter-based generator of its own, keyed by the seed and its name.
    """
    return {
        name: np.zeros(shape, np.float32) if name.endswith(B) else _uniform(name, shape, seed)
        for name, shape in shapes.items()
    }


def _uniform(name: str, shape: tuple[int, int], seed: int) -> Array:
    key = int.from_bytes(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:16], "little")
    draws = np.random.Generator(np.random.Philox(key=key)).random(shape)
    return ((2 * draws - 1) / np.sqrt(shape[1])).astype(np.float32)


def digest(weights: Mapping[str, Array]) -> str:
    """Return one sha256, in hex, over the name, shape and bytes of every tensor, in the order of names."""
    found = hashlib.sha256()
    for name in sorted(weights):
        values = np.ascontiguousarray(weights[name], np.float32)
        found.update(f"{name}\0{values.shape}\n".encode())
        found.update(values.tobytes())
    return found.hexdigest()


def size(weights: Mapping[str, Array]) -> int:
    """Return the bytes of all values."""
    return sum(values.nbytes for values in weights.values())


def norm(weights: Mapping[str, Array]) -> float:
    """Return the Euclidean norm over all values, computed in float64."""
    return float(np.sqrt(sum(float(np.square(values, dtype=np.float64).sum()) for values in weights.values())))


def trained(weights: Mapping[str, Array], *, frozen_a: bool) -> Weights:
    """Return what nodes train and send: B alone where A is frozen, else both factors."""
    return {name: values for name, values in weights.items() if not (frozen_a and name.endswith(A))}
