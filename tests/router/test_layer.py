import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from moehub.router.backends import BACKENDS, runnable
from moehub.router.layer import StackedLinear, Switchboard
from moehub.router.route import Route

CPU = torch.device("cpu")
IN, OUT, EXPERTS, RANK = 12, 20, 3, 8


class Fixed:
    """Answers every question with one route, and remembers what it was asked."""

    def __init__(self, route: Route) -> None:
        self.answer = route
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def route(self, key: str, x: Tensor) -> Route:
        self.asked.append((key, tuple(x.shape)))
        return self.answer


def sparse(linear: nn.Module, *, backend: str = "loop", dtype: torch.dtype = torch.float32) -> StackedLinear:
    generator = torch.Generator().manual_seed(4)
    return StackedLinear(
        linear,
        key="some.linear",
        A=torch.randn(EXPERTS, RANK, IN, generator=generator).to(dtype),
        B=torch.randn(EXPERTS, RANK, OUT, generator=generator).to(dtype),
        scale=torch.tensor([0.5, 2.0, 3.0]),
        board=Switchboard(BACKENDS[backend]),
    )


def linears() -> dict[str, nn.Module]:
    torch.manual_seed(1)
    return {"biased": nn.Linear(IN, OUT), "plain": nn.Linear(IN, OUT, bias=False), "conv": Conv1D(OUT, IN)}


@pytest.mark.parametrize("kind", linears())
@pytest.mark.parametrize("shape", [(5, IN), (2, 3, IN), (2, 1, 3, IN), (1, 1, IN)], ids=str)
def test_the_layer_is_its_linear_with_the_updates_merged(kind: str, shape: tuple[int, ...]) -> None:
    """Sent to one expert, the output is that of the base's weight plus s·B·A, whatever the input's dimensions."""
    linear, x = linears()[kind], torch.randn(*shape, generator=torch.Generator().manual_seed(2))
    layer, expert = sparse(linear), 1
    layer.board.routing = Fixed(Route.fixed(expert, tokens=x[..., 0].numel(), experts=EXPERTS, device=CPU))
    update = layer.scale[expert] * layer.B[expert].T @ layer.A[expert]
    weight = (linear.weight.T if kind == "conv" else linear.weight) + update  # type: ignore[operator]
    expected = nn.functional.linear(x, weight, linear.bias)  # type: ignore[arg-type]
    assert layer(x).shape == (*shape[:-1], OUT)
    torch.testing.assert_close(layer(x), expected, atol=1e-4, rtol=1e-5)


def test_each_token_of_a_batch_has_its_own_route() -> None:
    """Routes are numbered text by text: the tokens of the second text come after all of the first."""
    layer, x = sparse(nn.Linear(IN, OUT)), torch.randn(2, 3, IN, generator=torch.Generator().manual_seed(3))
    experts = torch.tensor([[0], [1], [2], [2], [1], [0]])
    layer.board.routing = Fixed(Route(experts, torch.ones(6, 1), EXPERTS))
    together = layer(x)
    for text, token in ((0, 1), (1, 0), (1, 2)):
        number = int(experts[3 * text + token])
        layer.board.routing = Fixed(Route.fixed(number, tokens=1, experts=EXPERTS, device=CPU))
        torch.testing.assert_close(together[text, token], layer(x[text, token][None])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", runnable(CPU))
def test_without_a_routing_the_layer_is_its_linear(backend: str) -> None:
    """Before the first forward, and for whoever uses the base alone, the layer adds nothing, bit for bit."""
    linear, x = nn.Linear(IN, OUT), torch.randn(4, IN)
    assert torch.equal(sparse(linear, backend=backend)(x), linear(x))


def test_the_routing_is_asked_by_name_with_flat_inputs() -> None:
    """A gate that decides in each layer is told which linear asks and sees one row a token."""
    layer, routing = sparse(nn.Linear(IN, OUT)), Fixed(Route.fixed(0, tokens=6, experts=EXPERTS, device=CPU))
    layer.board.routing = routing
    layer(torch.zeros(2, 3, IN))
    assert routing.asked == [("some.linear", (6, IN))]


@pytest.mark.parametrize("base", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("experts", [torch.float32, torch.bfloat16], ids=str)
def test_the_output_has_the_bases_precision(base: torch.dtype, experts: torch.dtype) -> None:
    """Experts may be stored in another precision than the base: the sum is theirs, the output is the base's."""
    layer = sparse(nn.Linear(IN, OUT, dtype=base), dtype=experts)
    x = torch.randn(4, IN, generator=torch.Generator().manual_seed(5)).to(base)
    layer.board.routing = Fixed(Route.fixed(2, tokens=4, experts=EXPERTS, device=CPU))
    out = layer(x)
    assert out.dtype == base
    reference = sparse(nn.Linear(IN, OUT))
    reference.linear = layer.linear.float()
    reference.board.routing = layer.board.routing
    torch.testing.assert_close(out.float(), reference(x.float()), atol=0.5, rtol=0.05)


def test_weight_and_bias_are_the_bases() -> None:
    """Models look at a linear's weight and bias; they see the base's own, and a missing bias is None."""
    for linear in linears().values():
        layer = sparse(linear)
        assert layer.weight is linear.weight
        assert layer.bias is linear.bias


def test_only_the_experts_could_learn_and_none_does_unasked() -> None:
    """A and B are parameters without gradient, the scale is no parameter: an optimizer never moves it."""
    layer = sparse(nn.Linear(IN, OUT))
    own = {name: parameter.requires_grad for name, parameter in layer.named_parameters() if "linear" not in name}
    assert own == {"A": False, "B": False}
    assert "scale" in dict(layer.named_buffers())


def test_scales_and_weights_stay_in_float32_in_half_models() -> None:
    """A model that is cast to 16 bits still multiplies by its experts' scales in float32."""
    layer = sparse(nn.Linear(IN, OUT))
    seen: dict[str, torch.dtype] = {}

    def spy(x: Tensor, y: Tensor, route: Route, *, A: Tensor, B: Tensor, scale: Tensor) -> Tensor:
        seen.update(x=x.dtype, y=y.dtype, weights=route.weights.dtype, A=A.dtype, B=B.dtype, scale=scale.dtype)
        return y

    layer.board = Switchboard(spy)
    layer.board.routing = Fixed(Route.fixed(0, tokens=2, experts=EXPERTS, device=CPU))
    layer.bfloat16()(torch.zeros(2, IN, dtype=torch.bfloat16))
    half, full = torch.bfloat16, torch.float32
    assert seen == {"x": half, "y": half, "weights": full, "A": half, "B": half, "scale": full}
