"""Compile every program of the triton backend for sm_90, without a GPU, and print the shared memory that each wants.

    python -m tests.router.compiled

What `launch` would start is compiled instead, so the sizes are those of real launches: hidden 4096, 64 experts.
"""

from typing import Any

import torch
import triton
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from moehub.router.backends.triton import by_tile, by_token, launch
from moehub.router.tiles import Tiles

_TARGET = GPUTarget("cuda", 90, 32)
_TYPES = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float64: "*fp64", torch.int32: "*i32", torch.int64: "*i64",
}  # fmt: skip


class Recorded:
    """Stands in for a program: compiles it for what it would have been started with."""

    def __init__(self, program: Any, shared: dict[str, int]) -> None:
        self.program, self.shared = program, shared

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert all(size > 0 for size in grid)
        return self.compile

    def compile(self, *given: Any, **constants: Any) -> None:
        names = self.program.arg_names
        values = dict(zip(names, given, strict=False))
        types = {
            name: _TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32" for name, value in values.items()
        }
        # A launch makes the number 1 a constant.
        constants |= {name: value for name, value in values.items() if isinstance(value, int) and value == 1}
        # Addresses of tensors and widths of 4096 are multiples of 16: so would the launch say.
        aligned = [
            number
            for number, (name, value) in enumerate(values.items())
            if isinstance(value, torch.Tensor) or value % 16 == 0
        ]
        hints = {(number,): [["tt.divisibility", 16]] for number in aligned}
        source = ASTSource(self.program, types | dict.fromkeys(constants, "constexpr"), constants, hints)
        name = self.program.__name__
        made = triton.compile(source, target=_TARGET)
        self.shared[name] = max(self.shared.get(name, 0), made.metadata.shared)


def main() -> None:
    """Compile, and print a line for each program."""
    shared: dict[str, int] = {}
    for module in (by_tile, by_token):
        for name in ("shrink_tiles", "expand_tiles", "sum_tokens", "shrink_tokens", "expand_tokens"):
            if hasattr(module, name):
                setattr(module, name, Recorded(getattr(module, name), shared))
    _launch(torch.bfloat16, rank=1, tokens=1)
    _launch(torch.bfloat16, rank=16, tokens=512)
    _launch(torch.bfloat16, rank=16, tokens=8192)
    _launch(torch.float32, rank=64, tokens=8192)  # the largest blocks
    for name, size in shared.items():
        print(name, size)  # noqa: T201 (read by the test)


def _launch(dtype: torch.dtype, *, rank: int, tokens: int, width: int = 4096, experts: int = 64) -> None:
    with FakeTensorMode():
        down = up = torch.empty(experts, rank, width, dtype=dtype)
        scale, rows = torch.empty(experts), torch.empty(tokens, width, dtype=dtype)
        indices, weights = torch.zeros(tokens, 2, dtype=torch.int64), torch.empty(tokens, 2, dtype=torch.float64)
        launch.few(rows[:1], rows[:1], indices[:1], weights[:1], A=down, B=up, scale=scale)
        tiles = Tiles.of(indices, weights, experts)
        inner = launch.shrink(rows, down, tiles, zeroed=False)
        launch.expand(rows, inner, up, weights, scale, tiles)
        launch.expand(None, inner, up, weights, scale, tiles)
        launch.outer(inner, rows, weights, scale, tiles)


if __name__ == "__main__":
    main()
