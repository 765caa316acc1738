import pytest
import torch
from torch import Tensor

from moehub.router.diagonal import Diagonal, Rows
from moehub.router.route import Route

EXPERTS, WIDTH = 5, 12


def made(dtype: torch.dtype = torch.float32) -> tuple[Diagonal, Tensor]:
    """Return the diagonal of five experts of which the second and the last are DoRAs, and d of all, [E, d_out]."""
    draw = torch.Generator().manual_seed(1)
    factors = torch.ones(EXPERTS, WIDTH)
    factors[[1, 4]] = torch.rand(2, WIDTH, generator=draw) + 0.5
    diagonal = Diagonal(Rows((1, 4), experts=EXPERTS), width=WIDTH, dtype=dtype)
    for expert in (1, 4):
        diagonal.fill(expert, factors[expert])
    return diagonal, factors


def routed(tokens: int) -> Route:
    draw = torch.Generator().manual_seed(2)
    indices = torch.randint(EXPERTS, (tokens, 3), generator=draw)
    return Route(indices, torch.rand(tokens, 3, generator=draw, dtype=torch.float64) / 3, EXPERTS)


def plain(y: Tensor, bias: Tensor | None, route: Route, factors: Tensor) -> Tensor:
    """Return what the formula says, in float64."""
    own = y.double() - (0 if bias is None else bias.double())
    return y.double() + route.dense.double() @ (factors.double() - 1) * own


@pytest.mark.parametrize("tokens", [1, 7, 700])
@pytest.mark.parametrize("biased", [False, True])
def test_it_follows_the_formula(tokens: int, biased: bool) -> None:
    """In place where nobody wants gradients, in pieces where there are many tokens; biases stay as they are."""
    (diagonal, factors), route = made(), routed(tokens)
    y, bias = torch.randn(tokens, WIDTH), torch.randn(WIDTH) if biased else None
    expected = plain(y, bias, route, factors)
    assert (expected - y).abs().max() > 1e-2
    torch.testing.assert_close(diagonal(y, bias, route).double(), expected, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        given = y.clone()
        assert diagonal(given, bias, route) is given
    torch.testing.assert_close(given.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.no_grad()
def test_sixteen_bits_lose_one_rounding(dtype: torch.dtype) -> None:
    """What is kept is d − 1, so that a factor near one is not rounded to it."""
    (diagonal, factors), route = made(dtype), routed(9)
    y = torch.randn(9, WIDTH).to(dtype)
    expected = plain(y, None, route, factors)
    found = diagonal(y.clone(), None, route).double()
    assert ((found - expected).abs() <= 3 * torch.finfo(dtype).eps * expected.abs().clamp_min(0.1)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_reach_the_output_and_the_weights(dtype: torch.dtype) -> None:
    """Also where another expert is filled in before the way back."""
    diagonal, factors = made(dtype)
    late = Diagonal(diagonal.rows, width=WIDTH, dtype=dtype)
    late.fill(1, factors[1])
    few = routed(9)
    indices = few.indices.where(few.indices != 4, 0)
    y, bias = torch.randn(9, WIDTH).to(dtype), torch.randn(WIDTH)
    found = []
    for path in ("mine", "theirs"):
        given, weights = y.clone().double().requires_grad_(), few.weights.clone().requires_grad_()
        route = Route(indices, weights, EXPERTS)
        if path == "mine":
            out = late(given.to(dtype), bias, route).double()
            late.fill(4, factors[4])
        else:
            out = plain(given, bias.to(dtype), route, factors)
        out.sum().backward()
        found.append((given.grad, weights.grad))
    slack = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(found[0], found[1], atol=slack, rtol=slack)


@torch.no_grad()
def test_who_is_no_dora_changes_no_bit() -> None:
    """Nor does one that was not filled in."""
    diagonal, _ = made()
    y, others = torch.randn(6, WIDTH), torch.tensor([[0, 2, 3]]).expand(6, -1)
    route = Route(others, torch.full((6, 3), 0.3), EXPERTS)
    assert torch.equal(diagonal(y.clone(), None, route), y)
    empty = Diagonal(diagonal.rows, width=WIDTH, dtype=torch.float32)
    assert torch.equal(empty(y.clone(), None, routed(6)), y)
