"""MegaBlocks itself, its Triton copies interpreted on a CPU; `make test` brings it (the Makefile says how)."""

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from moehub.errors import RouterError
from moehub.router import backends
from moehub.router.backends import megablocks as backend
from moehub.router.backends.loop import loop
from moehub.router.backends.megablocks import library, operations
from moehub.router.backends.megablocks.dense_experts import DenseExperts, SwiGLU
from moehub.router.route import Route
from tests.router.test_backends import LACKS_MEGABLOCKS, SIZES, Problem, problem

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_megablocks = pytest.mark.skipif(LACKS_MEGABLOCKS, reason="`make test` brings megablocks")


def small(size: str, dtype: torch.dtype = torch.float32) -> Problem:
    """Return a problem whose output is about as large as one, so that tolerances are absolute."""
    given = problem(**SIZES[size])
    for leaf in (given.x, given.y, given.A, given.B):
        leaf.data = (leaf.data / leaf.shape[-1] ** 0.5).to(dtype)
    return given


def gradients(given: Problem, out: Tensor) -> dict[str, Tensor]:
    """Return the gradients of a fixed sum of the output; those of pairs that nobody chose are left out."""
    probe = torch.randn(out.shape, generator=torch.Generator().manual_seed(9)).to(out.dtype)
    leaves = given.leaves()
    found = dict(zip(leaves, torch.autograd.grad((out * probe).sum(), list(leaves.values())), strict=True))
    return found | {"weights": found["weights"] * (given.weights > 0)}


@needs_megablocks
@pytest.mark.parametrize("size", SIZES)
def test_experts_of_low_rank_equal_the_loop(size: str) -> None:
    """In single precision the output agrees within 1e-6 and every gradient within 1e-5 of its largest value."""
    given, other = small(size), small(size)
    expected = loop(given.x, given.y, given.route(), A=given.A, B=given.B, scale=given.scale)
    actual = backend.megablocks(other.x, other.y, other.route(), A=other.A, B=other.B, scale=other.scale)
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    wanted, found = gradients(given, expected), gradients(other, actual)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-5 * max(1, float(value.abs().max())), rtol=0)


@needs_megablocks
@torch.no_grad()
def test_in_bfloat16_experts_of_low_rank_are_close_to_the_loop() -> None:
    """Within 1e-2 of single precision."""
    given, exact = small("even", torch.bfloat16), small("even", torch.bfloat16)
    for leaf in (exact.x, exact.y, exact.A, exact.B):
        leaf.data = leaf.data.float()
    expected = loop(exact.x, exact.y, exact.route(), A=exact.A, B=exact.B, scale=exact.scale)
    actual = backend.megablocks(given.x, given.y, given.route(), A=given.A, B=given.B, scale=given.scale)
    assert (actual.float() - expected).abs().max() <= 1e-2


def networks(experts: int, *, hidden: int, inside: int, dtype: torch.dtype = torch.float32) -> list[SwiGLU]:
    generator = torch.Generator().manual_seed(experts)

    def random(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=generator) / shape[-1] ** 0.5).to(dtype)

    return [SwiGLU(random(inside, hidden), random(inside, hidden), random(hidden, inside)) for _ in range(experts)]


def one_by_one(experts: list[SwiGLU], x: Tensor, route: Route) -> Tensor:
    """Return what the layer of dense experts should, expert by expert over all tokens."""
    silu, linear = torch.nn.functional.silu, torch.nn.functional.linear
    outputs = [linear(silu(linear(x, one.w1)) * linear(x, one.v1), one.w2) for one in experts]
    return torch.stack([route.dense[:, [number]] * out for number, out in enumerate(outputs)]).sum(0)


@needs_megablocks
@pytest.mark.parametrize(
    ("experts", "hidden", "inside", "k"), [(4, 32, 48, 2), (3, 20, 45, 3), (5, 17, 28, 1), (1, 8, 130, 1)]
)
def test_dense_experts_equal_a_loop(experts: int, hidden: int, inside: int, k: int) -> None:
    """MegaBlocks' dMoE over folded networks is our gate's mixture of them within 1e-6, its gradients within 1e-5."""
    made, generator = networks(experts, hidden=hidden, inside=inside), torch.Generator().manual_seed(1)
    layer = DenseExperts(made, top_k=k)
    x = torch.randn(13, hidden, generator=generator).requires_grad_()
    indices = torch.rand(13, experts, generator=generator).argsort(-1)[:, :k]
    weights = torch.rand(13, k, generator=generator).requires_grad_()
    for one in made:
        for weight in (one.w1, one.v1, one.w2):
            weight.requires_grad_()
    expected, actual = (one(x, Route(indices, weights, experts)) for one in (lambda *a: one_by_one(made, *a), layer))
    torch.testing.assert_close(actual, expected, atol=1e-6, rtol=1e-6)
    probe = torch.randn(expected.shape, generator=generator)
    inner = layer.layer.experts.mlp
    theirs = torch.autograd.grad((actual * probe).sum(), [x, weights, inner.w1, inner.v1, inner.w2])
    plain = [*(one.w1 for one in made), *(one.v1 for one in made), *(one.w2 for one in made)]
    flat = torch.autograd.grad((expected * probe).sum(), [x, weights, *plain])
    ours = [*flat[:2], torch.cat(flat[2 : 2 + experts]), torch.cat(flat[2 + experts : 2 + 2 * experts])]
    ours.append(torch.cat([one.T for one in flat[2 + 2 * experts :]]))
    for mine, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(their, mine, atol=1e-5, rtol=1e-5)


@needs_megablocks
@torch.no_grad()
def test_dense_experts_in_bfloat16_are_close() -> None:
    """Within 1e-2 of single precision."""
    made = networks(4, hidden=32, inside=48, dtype=torch.bfloat16)
    x = torch.randn(9, 32, generator=torch.Generator().manual_seed(2)).mul(0.5).to(torch.bfloat16)
    route = Route(torch.arange(18).view(9, 2) % 4, torch.full((9, 2), 0.5), 4)
    exact = [SwiGLU(one.w1.float(), one.v1.float(), one.w2.float()) for one in made]
    actual = DenseExperts(made, top_k=2)(x, route)
    assert actual.dtype == torch.bfloat16
    assert (actual.float() - one_by_one(exact, x.float(), route)).abs().max() <= 1e-2


@needs_megablocks
def test_a_route_that_does_not_fit_the_dense_experts_is_an_error() -> None:
    """MegaBlocks would read beyond its weights, or take a token's second expert for the next token's first."""
    layer = DenseExperts(networks(2, hidden=8, inside=64), top_k=2)
    with pytest.raises(RouterError, match="a route over 2 experts with 1 a token does not fit"):
        layer(torch.zeros(3, 8), Route.fixed(0, tokens=3, experts=2, device=CPU))


@needs_megablocks
def test_what_is_ours_is_said() -> None:
    """The source names the extensions that were not built."""
    assert library.load().source == "megablocks 0.10.0 without megablocks_ops and grouped_gemm"


def test_the_hubs_kernel_is_taken_where_the_package_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the version that was looked at; a stand-in of ours answers, because tests use no network."""
    asked: list[Any] = []
    kernel = SimpleNamespace(ops="ops", gg_ops=SimpleNamespace(gmm="gmm"), dMoE="dMoE", Arguments="Arguments")

    def get_kernel(name: str, *, version: int) -> SimpleNamespace:
        asked.append((name, version))
        return kernel

    stand_in = ModuleType("kernels")
    stand_in.get_kernel = get_kernel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kernels", stand_in)
    monkeypatch.setattr(library, "installed", lambda name: name == "kernels")
    found = library.load.__wrapped__()
    assert asked == [("kernels-community/megablocks", 1)]
    assert [found.ops, found.multiply, found.dMoE, found.arguments] == ["ops", "gmm", "dMoE", "Arguments"]


def test_a_megablocks_that_does_not_load_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build for another torch fails in ways of its own; the sentence says where the cure is."""

    def broken(name: str) -> ModuleType:
        raise OSError(f"{name}.so: undefined symbol")

    monkeypatch.setattr(library, "installed", lambda _: True)
    monkeypatch.setattr(importlib, "import_module", broken)
    with pytest.raises(RouterError, match=r"cannot be loaded \(OSError: .*undefined symbol\): .*docs/backends.md"):
        library.load.__wrapped__()


def test_what_is_missing_is_said_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name, a backend that cannot run is an error: no triton, no MegaBlocks, no GPU."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    here: set[str] = set()
    monkeypatch.setattr(backend, "installed", lambda name: name in here)
    for package, device, text in (
        ("triton", CUDA, "it needs the package triton: pip install triton"),
        ("kernels", CUDA, "it needs the package megablocks or kernels: docs/backends.md"),
        ("", CPU, "it needs a CUDA device"),
    ):
        with pytest.raises(RouterError, match=text):
            backends.choose("megablocks", experts=2, rank=8, dtype=torch.bfloat16, device=device)
        here.add(package)
    assert backends.choose("megablocks", experts=2, rank=8, dtype=torch.bfloat16, device=CUDA)[0] == "megablocks"


def test_our_operations_do_what_megablocks_says_they_do() -> None:
    """Sort with places, count, add up, and multiply groups of odd sizes, against plain definitions."""
    x = torch.tensor([3, 1, 0, 3, 1, 1], dtype=torch.int32)
    values, places = torch.empty_like(x), torch.empty_like(x)
    operations.sort(x, 2, values, places)
    assert (values.tolist(), places.tolist()) == ([0, 1, 1, 1, 3, 3], [2, 1, 4, 5, 0, 3])
    counts = operations.histogram(x, 5)
    assert (counts.tolist(), counts.dtype) == ([1, 3, 0, 2, 0], torch.int32)
    ends = torch.empty_like(counts)
    operations.inclusive_cumsum(counts, 0, ends)
    assert ends.tolist() == [1, 4, 4, 6, 6]
    rows, matrices = torch.randn(6, 7), torch.randn(5, 7, 3)
    expected = torch.cat([rows[:1] @ matrices[0], rows[1:4] @ matrices[1], rows[4:] @ matrices[3]])
    torch.testing.assert_close(operations.gmm(rows, matrices, counts), expected)
    torch.testing.assert_close(
        operations.gmm(rows, matrices.transpose(1, 2).contiguous(), counts, trans_b=True), expected
    )
    assert operations.gmm(rows, matrices, counts).is_contiguous()
