import importlib.util
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from moehub.errors import RouterError
from moehub.router.backends import BACKENDS, choose, runnable
from moehub.router.backends import triton as triton_backend
from moehub.router.native import compiler
from moehub.router.route import Route

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
LACKS_TRITON = importlib.util.find_spec("triton") is None
LACKS_MEGABLOCKS = LACKS_TRITON or importlib.util.find_spec("megablocks") is None
FAST = [
    "dense",
    "grouped",
    "gather",
    pytest.param("triton", marks=pytest.mark.skipif(LACKS_TRITON, reason="there is no triton for this system")),
    pytest.param("megablocks", marks=pytest.mark.skipif(LACKS_MEGABLOCKS, reason="`make test` brings megablocks")),
]


@dataclass
class Problem:
    """One sparse layer's inputs, with gradients wanted for all of them."""

    x: Tensor
    y: Tensor
    A: Tensor
    B: Tensor
    scale: Tensor
    weights: Tensor
    indices: Tensor
    experts: int

    def leaves(self) -> dict[str, Tensor]:
        return {"x": self.x, "y": self.y, "A": self.A, "B": self.B, "scale": self.scale, "weights": self.weights}

    def route(self) -> Route:
        return Route(self.indices, self.weights, self.experts)


def problem(
    *, tokens: int, experts: int, rank: int, width: int, out: int, k: int, used: int, dtype: torch.dtype = torch.float32
) -> Problem:
    """Return a random problem in which only the first `used` experts are chosen; about a third of the pairs is off."""
    generator = torch.Generator().manual_seed(tokens * 31 + experts)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    chosen = torch.rand(tokens, used, generator=generator).argsort(-1)[:, :k]
    weights = torch.rand(tokens, k, generator=generator)
    weights = weights * (torch.rand(tokens, k, generator=generator) > 0.35)
    return Problem(
        x=random(tokens, width),
        y=random(tokens, out),
        A=random(experts, rank, width),
        B=random(experts, rank, out),
        scale=torch.rand(experts, generator=generator).add(0.5).requires_grad_(),
        weights=weights.requires_grad_(),
        indices=chosen,
        experts=experts,
    )


def run(name: str, given: Problem) -> Tensor:
    return BACKENDS[name](given.x, given.y, given.route(), A=given.A, B=given.B, scale=given.scale)


SIZES: dict[str, Any] = {
    "even": {"tokens": 48, "experts": 4, "rank": 8, "width": 32, "out": 64, "k": 2, "used": 4},
    "odd": {"tokens": 37, "experts": 5, "rank": 3, "width": 33, "out": 19, "k": 2, "used": 5},
    "one token": {"tokens": 1, "experts": 6, "rank": 8, "width": 16, "out": 16, "k": 2, "used": 6},
    "empty experts": {"tokens": 20, "experts": 9, "rank": 5, "width": 24, "out": 8, "k": 2, "used": 3},
    "all on one": {"tokens": 23, "experts": 4, "rank": 8, "width": 16, "out": 24, "k": 1, "used": 1},
    "all of them": {"tokens": 11, "experts": 3, "rank": 8, "width": 16, "out": 16, "k": 3, "used": 3},
    "large ranks": {"tokens": 9, "experts": 3, "rank": 70, "width": 270, "out": 140, "k": 2, "used": 3},
    "many tokens": {"tokens": 150, "experts": 2, "rank": 20, "width": 40, "out": 36, "k": 2, "used": 2},
    "one expert": {"tokens": 11, "experts": 1, "rank": 7, "width": 9, "out": 5, "k": 1, "used": 1},
}


@pytest.mark.parametrize("size", SIZES)
def test_the_loop_is_the_formula(size: str) -> None:
    """The reference adds g·s·B A x for each chosen expert, computed here token by token."""
    given = problem(**SIZES[size])
    expected = given.y.detach().clone()
    for token in range(len(expected)):
        for slot, expert in enumerate(given.indices[token].tolist()):
            gate = given.weights[token, slot] * given.scale[expert]
            expected[token] += (gate * (given.x[token] @ given.A[expert].T) @ given.B[expert]).detach()
    torch.testing.assert_close(run("loop", given).detach(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("size", SIZES)
def test_every_backend_equals_the_loop_in_output_and_gradients(backend: str, size: str) -> None:
    """Output and the gradients of inputs, adapters, scales and gate weights are those of the loop."""
    reference, other = problem(**SIZES[size]), problem(**SIZES[size])
    expected, actual = run("loop", reference), run(backend, other)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    probe = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9))
    (expected * probe).sum().backward()
    (actual * probe).sum().backward()
    active = reference.weights.detach() > 0
    for name, leaf in reference.leaves().items():
        mine = other.leaves()[name].grad
        assert leaf.grad is not None, name
        assert mine is not None, name
        if name == "weights":  # an inactive pair is not computed by the sparse backends: it has no gradient there
            torch.testing.assert_close(mine[active], leaf.grad[active], atol=1e-3, rtol=1e-3)
        else:
            torch.testing.assert_close(mine, leaf.grad, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("backend", FAST)
def test_sixteen_bits_agree_within_their_precision(backend: str) -> None:
    """In bfloat16 every backend stays within the rounding of the loop."""
    given = problem(**SIZES["even"], dtype=torch.bfloat16)
    torch.testing.assert_close(run(backend, given), run("loop", given), atol=0.5, rtol=0.05)


@pytest.mark.parametrize("backend", runnable(CPU))
def test_nobody_chosen_changes_nothing(backend: str) -> None:
    """Where all weights are zero the linear's output comes back bit for bit."""
    given = problem(**SIZES["even"])
    nobody = Route(given.indices, torch.zeros_like(given.weights), given.experts)
    out = BACKENDS[backend](given.x, given.y, nobody, A=given.A, B=given.B, scale=given.scale)
    assert torch.equal(out, given.y)


def test_gather_gives_many_tokens_to_grouped() -> None:
    """Beyond its limit it returns what `grouped` returns, bit for bit."""
    given = problem(**SIZES["many tokens"])
    assert torch.equal(run("gather", given), run("grouped", given))


def test_an_unknown_backend_is_an_error() -> None:
    """A backend that was asked for by name and does not exist is refused with the names that do."""
    with pytest.raises(RouterError, match=r"no backend 'megablox'.*native, loop, .*gather, triton, megablocks"):
        choose("megablox", experts=2, rank=8, dtype=torch.float32, device=CPU)


def test_auto_gives_its_reason() -> None:
    """Few stacked experts run dense, many grouped, and the reason names the measured limit."""
    few = choose("auto", experts=2, rank=8, dtype=torch.float32, device=CPU, trainable=True)
    many = choose("auto", experts=512, rank=16, dtype=torch.float32, device=CPU, trainable=True)
    assert (few[0], many[0]) == ("dense", "grouped")
    assert "512 experts × rank 16 = 8192 >" in many[1]
    assert "not native: they are to be trained" in many[1]


@pytest.mark.parametrize(
    ("dtype", "device", "without"),
    [(torch.float16, "cpu", "float16"), (torch.float32, "meta", None), (torch.float32, "cpu", "no C++ compiler")],
)
def test_where_the_kernel_cannot_run_experts_are_stacked(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, device: str, without: str | None
) -> None:
    """Another device, another precision and a machine without a compiler are reasons, not errors."""
    compiler.library.cache_clear()
    monkeypatch.setattr(compiler, "compiler", lambda: None)
    name, reason = choose("auto", experts=2, rank=8, dtype=dtype, device=torch.device(device))
    compiler.library.cache_clear()
    assert name == "dense"
    assert (without or "") in reason


def test_the_kernel_is_the_choice_for_reading_on_a_cpu() -> None:
    """Experts that nobody trains are read by the kernel; asked for by name where it cannot be, it is an error."""
    for dtype in (torch.float32, torch.bfloat16):
        assert choose("auto", experts=64, rank=8, dtype=dtype, device=CPU)[0] == "native"
    with pytest.raises(RouterError, match="'native' cannot be used here: they are to be trained"):
        choose("native", experts=2, rank=8, dtype=torch.float32, device=CPU, trainable=True)
    with pytest.raises(RouterError, match=r"not torch\.float16"):
        choose("native", experts=2, rank=8, dtype=torch.float16, device=CPU)


def test_a_variable_decides_what_auto_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """MOEHUB_BACKEND names the backend for a whole shell; a name that is given goes first."""
    monkeypatch.setenv("MOEHUB_BACKEND", "loop")
    assert choose("auto", experts=2, rank=8, dtype=torch.float32, device=CPU) == (
        "loop",
        "asked for by MOEHUB_BACKEND",
    )
    assert choose("dense", experts=2, rank=8, dtype=torch.float32, device=CPU)[0] == "dense"


def test_a_backend_that_cannot_run_is_an_error_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was asked for by name, so nothing else is taken in its place."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(triton_backend, "installed", lambda: True)
    with pytest.raises(RouterError, match=r"'triton' cannot run on cpu, it needs a CUDA device: load .* device_map="):
        choose("triton", experts=2, rank=8, dtype=torch.float32, device=CPU)
    monkeypatch.setattr(triton_backend, "installed", lambda: False)
    with pytest.raises(RouterError, match=r"cannot run on cuda, it needs the package triton: pip install triton"):
        choose("triton", experts=2, rank=8, dtype=torch.float32, device=CUDA)


def test_auto_takes_triton_on_cuda_and_says_that_nobody_measured_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without triton few experts run dense and more by gathering, and the reason says what is missing."""
    monkeypatch.setattr(triton_backend, "installed", lambda: True)
    name, reason = choose("auto", experts=64, rank=16, dtype=torch.bfloat16, device=CUDA)
    assert (name, "not measured" in reason) == ("triton", True)
    monkeypatch.setattr(triton_backend, "installed", lambda: False)
    few = choose("auto", experts=2, rank=8, dtype=torch.bfloat16, device=CUDA)
    many = choose("auto", experts=64, rank=16, dtype=torch.bfloat16, device=CUDA)
    assert (few[0], many[0]) == ("dense", "gather")
    assert all("not measured" in why and "triton" in why for _, why in (few, many))
