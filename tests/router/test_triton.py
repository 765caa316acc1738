"""Triton's programs, interpreted on a CPU (tests/conftest.py says so), and compiled for a GPU that is not needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moehub.router.backends.loop import loop
from moehub.router.backends.triton import FEW, triton
from moehub.router.route import Route
from tests.router.test_backends import SIZES, problem

pytest.importorskip("triton", reason="there is no triton for this system")

FEW_TOKENS = [name for name, size in SIZES.items() if size["tokens"] <= FEW]
MANY_TOKENS = [name for name, size in SIZES.items() if size["tokens"] > FEW]


@pytest.mark.parametrize("size", [*FEW_TOKENS, *MANY_TOKENS])
@pytest.mark.parametrize("weights", [torch.float32, torch.float64])
@torch.no_grad()
def test_without_gradients_it_equals_the_loop(size: str, weights: torch.dtype) -> None:
    """Few tokens are computed token by token and many in tiles, whatever the gate's precision."""
    given = problem(**SIZES[size])
    route = Route(given.indices, given.weights.detach().to(weights), given.experts)
    expected = loop(given.x, given.y, route, A=given.A, B=given.B, scale=given.scale)
    actual = triton(given.x, given.y, route, A=given.A, B=given.B, scale=given.scale)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_both_ways_are_tested() -> None:
    """The sizes above lie on both sides of the limit."""
    assert FEW_TOKENS
    assert MANY_TOKENS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", ["one token", "odd", "even"])
def test_sixteen_bits_are_close_to_single_precision(size: str, dtype: torch.dtype) -> None:
    """Sums are kept in single precision: the error stays at a rounding or two of the largest value."""
    given, exact = problem(**SIZES[size], dtype=dtype), problem(**SIZES[size])
    for leaf, same in zip(exact.leaves().values(), given.leaves().values(), strict=True):
        leaf.data = same.detach().to(leaf.dtype)
    expected = loop(exact.x, exact.y, exact.route(), A=exact.A, B=exact.B, scale=exact.scale).detach()
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            actual = triton(given.x, given.y, given.route(), A=given.A, B=given.B, scale=given.scale)
        assert actual.dtype == dtype
        assert (actual.float() - expected).abs().max() <= 2 * torch.finfo(dtype).eps * expected.abs().max()


def test_no_tokens_are_no_work() -> None:
    """An empty batch comes back as it is."""
    given = problem(**SIZES["odd"])
    nobody = Route(given.indices[:0], given.weights[:0], given.experts)
    out = triton(given.x[:0], given.y[:0], nobody, A=given.A, B=given.B, scale=given.scale)
    assert out.shape == (0, given.y.shape[1])


def test_gradients_are_made_for_what_wants_them_alone() -> None:
    """Frozen adapters get none, as in a forward that trains nothing but what stands before the layer."""
    given = problem(**SIZES["odd"])
    given.A.requires_grad_(False)
    given.B.requires_grad_(False)
    given.scale.requires_grad_(False)
    triton(given.x, given.y, given.route(), A=given.A, B=given.B, scale=given.scale).sum().backward()
    assert all(leaf.grad is None for leaf in (given.A, given.B, given.scale))
    assert all(leaf.grad is not None for leaf in (given.x, given.y, given.weights))


def test_inputs_need_not_be_contiguous() -> None:
    """Rows that lie transposed in memory are copied first."""
    given = problem(**SIZES["odd"])
    x, y = given.x.detach().t().contiguous().t(), given.y.detach().t().contiguous().t()
    expected = loop(x, y, given.route(), A=given.A, B=given.B, scale=given.scale)
    with torch.no_grad():
        actual = triton(x, y, given.route(), A=given.A, B=given.B, scale=given.scale)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def test_every_program_compiles_for_a_gpu(tmp_path: Path) -> None:
    """Each becomes machine code for sm_90, and its shared memory fits into that of any card since Ampere."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "tests.router.compiled"]
    ran = subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2]
    )
    assert ran.returncode == 0, ran.stderr
    shared = {line.split()[0]: int(line.split()[1]) for line in ran.stdout.splitlines()}
    assert set(shared) == {"shrink_tiles", "expand_tiles", "sum_tokens", "shrink_tokens", "expand_tokens"}
    assert max(shared.values()) <= 99 << 10, shared
