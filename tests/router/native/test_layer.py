import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moehub.errors import RouterError
from moehub.experts.adapter import Adapter
from moehub.router.backends.loop import loop
from moehub.router.layer import Switchboard
from moehub.router.native import library
from moehub.router.native.layer import ShelvedLinear
from moehub.router.native.shelf import Shelf
from moehub.router.route import Route
from tests.router.test_backends import SIZES, Problem, problem

TILED: dict[str, Any] = {"tokens": 75, "experts": 3, "rank": 16, "width": 96, "out": 160, "k": 2, "used": 3}
"""Widths that fill tiles of 16-bit matrix instructions, with rows left over."""
SHAPES: dict[str, dict[str, Any]] = {
    **SIZES,
    "tiles": TILED,
    "wide rank": {**TILED, "rank": 40},
    "two tiles of ranks": {**TILED, "rank": 32},
    "few a head": {**TILED, "tokens": 3},
    "many pieces": {**TILED, "tokens": 700, "experts": 2, "used": 2},
    "one column": {**TILED, "out": 1, "width": 7},
}


def shelved(given: Problem) -> ShelvedLinear:
    """Return the layer whose experts are those of a problem for stacked ones."""
    adapters = [
        Adapter({"linear": (A, B.T.contiguous())}, {"linear": float(scale)})
        for A, B, scale in zip(given.A.detach(), given.B.detach(), given.scale.detach(), strict=True)
    ]
    linear = nn.Linear(given.x.shape[1], given.y.shape[1])
    return ShelvedLinear(linear, key="linear", shelf=Shelf(adapters, given.x.dtype), board=Switchboard())


def exact(given: Problem) -> Tensor:
    """Return what the layer should give, in float64."""
    x, y, A, B = (one.detach().double() for one in (given.x, given.y, given.A, given.B))
    return loop(x, y, given.route(), A=A, B=B, scale=given.scale.detach().double())


@pytest.mark.parametrize("size", SHAPES)
def test_the_kernel_equals_the_loop_in_output_and_gradients(size: str) -> None:
    """Output and the gradients of inputs and gate weights are those of the plain loop over stacked experts."""
    reference, other = problem(**SHAPES[size]), problem(**SHAPES[size])
    expected = loop(reference.x, reference.y, reference.route(), A=reference.A, B=reference.B, scale=reference.scale)
    actual = shelved(other).add(other.x, other.y, other.route())
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    (expected * probe).sum().backward()
    (actual * probe).sum().backward()
    active = reference.weights.detach() > 0
    for name in ("x", "y", "weights"):
        mine, theirs = other.leaves()[name].grad, reference.leaves()[name].grad
        assert mine is not None
        assert theirs is not None
        if name == "weights":  # an inactive pair is not computed: it has no gradient
            mine, theirs = mine[active], theirs[active]
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("size", SHAPES)
@torch.no_grad()
def test_sixteen_bits_are_as_good_as_rounding_the_result(size: str) -> None:
    """In bfloat16 sums are kept in float32: the output is within a few roundings of what float64 gives."""
    given = problem(**SHAPES[size], dtype=torch.bfloat16)
    expected = exact(given)
    actual = shelved(given).add(given.x, given.y.detach().clone(), given.route()).double()
    unit = expected.abs().amax().clamp_min(1) * 2**-8
    assert float((actual - expected).abs().amax() / unit) <= 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@torch.no_grad()
def test_threads_change_no_bit(dtype: torch.dtype) -> None:
    """The work is divided so that every value is computed by one thread, in the same way."""
    given = problem(tokens=600, experts=4, rank=16, width=256, out=512, k=2, used=4, dtype=dtype)
    layer, before = shelved(given), torch.get_num_threads()
    outputs = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outputs.append(layer.add(given.x, given.y.detach().clone(), given.route()))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, other) for one, other in itertools.pairwise(outputs))


@torch.no_grad()
def test_without_gradients_the_output_is_changed_in_place() -> None:
    """Nothing of the size of the output is allocated when a MoE is only used."""
    given = problem(**TILED)
    y = given.y.detach().clone()
    assert shelved(given).add(given.x, y, given.route()) is y


@torch.no_grad()
def test_nobody_chosen_changes_nothing() -> None:
    """Where all weights are zero the linear's output stays bit for bit."""
    given = problem(**TILED)
    nobody = Route(given.indices, torch.zeros_like(given.weights), given.experts)
    assert torch.equal(shelved(given).add(given.x, given.y.detach().clone(), nobody), given.y)


@torch.no_grad()
def test_an_expert_without_this_linear_adds_nothing() -> None:
    """An expert may adapt other linears alone; experts of different ranks stand side by side."""
    A, B, x, y = torch.randn(5, 32), torch.randn(64, 5), torch.randn(9, 32), torch.randn(9, 64)
    wide = torch.randn(33, 32), torch.randn(64, 33)
    adapters = [
        Adapter({"other": (A, B)}, {"other": 1.0}),
        Adapter({"mine": (A, B)}, {"mine": 2.0}),
        Adapter({"mine": wide}, {"mine": 0.5}),
    ]
    layer = ShelvedLinear(nn.Linear(32, 64), key="mine", shelf=Shelf(adapters, torch.float32), board=Switchboard())
    route = Route(torch.arange(3).repeat(3)[:, None], torch.ones(9, 1), 3)
    expected = y.clone()
    expected[1::3] += 2 * x[1::3] @ A.T @ B.T
    expected[2::3] += 0.5 * x[2::3] @ wide[0].T @ wide[1].T
    torch.testing.assert_close(layer.add(x, y, route), expected, atol=1e-4, rtol=1e-5)


def test_what_would_read_beyond_is_refused() -> None:
    """The kernel trusts shapes and numbers, so wrong ones end in a sentence before it is called."""
    given = problem(**TILED)
    layer, x, y = shelved(given), given.x.detach(), given.y.detach()
    with pytest.raises(RouterError, match="expected"):
        layer.add(x[:, :-1], y, given.route())
    with pytest.raises(RouterError, match="expected"):
        layer.add(x[:-1], y[:-1], given.route())
    with pytest.raises(RouterError, match="expert beyond the 3"):
        layer.add(x, y, Route(given.indices + 3, torch.ones_like(given.weights), 3))
    with pytest.raises(RouterError, match="loaded for the CPU and is on meta"):
        layer.add(x.to("meta"), y.to("meta"), given.route())


def test_the_instructions_have_a_name() -> None:
    """What a report says of the kernel."""
    assert library.instructions(torch.float32) == "vectors"
    assert library.instructions(torch.bfloat16) in ("vectors", "AMX")
