"""The compiled kernel as Python sees it: functions over pointers, and the two records that they read."""

import ctypes
from functools import cache

import numpy as np
import torch
from torch import Tensor

from moehub.errors import RouterError
from moehub.router.native.compiler import library
from moehub.router.route import Route

DTYPES = (torch.float32, torch.bfloat16)
"""What the kernel multiplies."""
_Pointer, _Number = ctypes.c_void_p, ctypes.c_int64


class Linear(ctypes.Structure):
    """The experts beside one linear: pointers to arrays of pointers, ranks and scales."""

    _fields_ = (
        ("d_in", _Number),
        ("d_out", _Number),
        ("down", _Pointer),
        ("up", _Pointer),
        ("rank", _Pointer),
        ("scale", _Pointer),
    )


class _Groups(ctypes.Structure):
    _fields_ = (
        ("count", _Number),
        ("expert", _Pointer),
        ("begin", _Pointer),
        ("pair", _Pointer),
        ("token", _Pointer),
        ("weight", _Pointer),
    )


class Groups:
    """A route's active pairs, sorted by expert, then by token; S of them."""

    def __init__(self, route: Route) -> None:
        """Sort the pairs of a route that lies on the CPU.

        Raises:
            RouterError: it names an expert that there is not.
        """
        tokens, choices = route.indices.shape
        pairs, experts = tokens * choices, route.experts
        # One allocation: expert [E], begin [E + 1], room to count in [E + 1], pair [S], token [S].
        self._numbers = np.empty(3 * experts + 2 + 2 * pairs, dtype=np.int64)
        self._weights = np.empty(pairs, dtype=np.float32)
        starts = np.cumsum([0, experts, experts + 1, experts + 1, pairs]) * self._numbers.itemsize
        expert, begin, room, pair, token = (self._numbers.ctypes.data + starts).tolist()
        self._record = _Groups(0, expert, begin, pair, token, self._weights.ctypes.data)
        indices, weights = route.indices.contiguous(), route.weights.detach().float().contiguous()
        group, record = _functions().moehub_group, ctypes.byref(self._record)
        if group(tokens, choices, experts, indices.data_ptr(), weights.data_ptr(), room, record):
            raise RouterError(f"a route names an expert beyond the {experts} that there are")
        self.rows = tokens
        """T."""
        self.reference = ctypes.byref(self._record)
        count = self._record.count
        self.experts: list[int] = self._numbers[:count].tolist()
        """Experts that have pairs, ascending."""
        self.begins: list[int] = self._numbers[experts : experts + count + 1].tolist()
        """Where each one's pairs begin, and where the last one's end."""
        active = slice(3 * experts + 2, 3 * experts + 2 + self.begins[-1])
        self.pairs = torch.from_numpy(self._numbers[active])
        """Positions in the flattened [T·K], int64 [S]."""
        self.tokens = torch.from_numpy(self._numbers[active.start + pairs : active.stop + pairs])
        """Token of each pair, int64 [S]."""


def add(linear: Linear, groups: Groups, x: Tensor, y: Tensor) -> None:
    """Add the experts' contributions to y [..., d_out], given x [T, d_in]; both contiguous, of one of `DTYPES`.

    Raises:
        RouterError: the shapes are not those of the linear and the route, or memory is short.
    """
    functions, rows = _functions(), groups.rows
    if x.shape != (rows, linear.d_in) or y.shape[-1] != linear.d_out or y.numel() != rows * linear.d_out:
        wanted = f"{(rows, linear.d_in)} and {(rows, linear.d_out)}"
        raise RouterError(f"inputs and outputs of {tuple(x.shape)} and {tuple(y.shape)}, expected {wanted}")
    function = functions.moehub_add_float32 if x.dtype == torch.float32 else functions.moehub_add_bfloat16
    if function(ctypes.byref(linear), groups.reference, rows, x.data_ptr(), y.data_ptr()):
        raise RouterError("there is too little memory for the sparse layer: give it shorter texts at a time")


def instructions(dtype: torch.dtype) -> str:
    """Return what numbers of this type are multiplied with here."""
    if dtype != torch.bfloat16:
        return "vectors"
    return str(_functions().moehub_bfloat16_with().decode())


@cache
def _functions() -> ctypes.CDLL:
    """Return the loaded kernel.

    Raises:
        RouterError: it cannot be compiled or loaded here.
    """
    place = library()
    try:
        functions = ctypes.CDLL(str(place))
    except OSError as error:
        raise RouterError(f"the compiled kernel cannot be loaded ({error}): remove {place}") from error
    for function in (functions.moehub_add_float32, functions.moehub_add_bfloat16):
        function.argtypes = [_Pointer, _Pointer, _Number, _Pointer, _Pointer]
        function.restype = ctypes.c_int
    functions.moehub_group.argtypes = [_Number, _Number, _Number, _Pointer, _Pointer, _Pointer, _Pointer]
    functions.moehub_group.restype = ctypes.c_int
    functions.moehub_bfloat16_with.restype = ctypes.c_char_p
    return functions
