import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from moehub.router.posterior import filter_chunked, filter_loop
from moehub.router.route import Route
from tests.router.beliefs import start

CPU = torch.device("cpu")


@st.composite
def gates(draw: st.DrawFn) -> Tensor:
    """Draw a few rows of probabilities, zeros and ties among them."""
    columns = draw(st.integers(2, 7))
    cell = st.one_of(st.sampled_from([0.0, 0.25, 1.0]), st.floats(1e-6, 1.0))
    rows = draw(st.lists(st.lists(cell, min_size=columns, max_size=columns).filter(any), min_size=1, max_size=5))
    gate = torch.tensor(rows, dtype=torch.float64)
    return gate / gate.sum(-1, keepdim=True)


@given(gate=gates(), top_k=st.integers(1, 9), threshold=st.floats(0, 0.99), has_null=st.booleans())
def test_whatever_the_gate_says_somebody_answers(gate: Tensor, top_k: int, threshold: float, has_null: bool) -> None:
    """Weights are never negative and sum to one, or to less only where the null expert has a share; never all drop."""
    route = Route.select(gate, top_k=top_k, threshold=threshold, has_null=has_null)
    dense = route.dense
    assert dense.shape == (len(gate), gate.shape[1] - has_null)
    assert bool((dense >= 0).all())
    share = dense.sum(-1)
    assert bool((share <= 1 + 1e-9).all())
    assert bool(((dense > 0).sum(-1) <= top_k).all())
    best_is_null = gate[:, -1] >= gate.amax(-1) if has_null else torch.zeros(len(gate), dtype=torch.bool)
    assert bool((share[~best_is_null] > 0).all())
    if not has_null:
        torch.testing.assert_close(share, torch.ones_like(share))


@given(gate=gates(), top_k=st.integers(1, 9), threshold=st.floats(0, 0.99), has_null=st.booleans())
def test_the_two_views_of_a_route_agree(gate: Tensor, top_k: int, threshold: float, has_null: bool) -> None:
    """The pairs sorted by expert hold exactly what the dense view holds, each expert's in one stretch."""
    route = Route.select(gate, top_k=top_k, threshold=threshold, has_null=has_null)
    rebuilt = torch.zeros_like(route.dense).index_put(
        (route.tokens, route.sorted_experts), route.sorted_weights, accumulate=True
    )
    torch.testing.assert_close(rebuilt, route.dense)
    assert route.sorted_experts.tolist() == sorted(route.sorted_experts.tolist())
    assert route.offsets.tolist() == route.counts.cumsum(0).tolist()
    assert int(route.counts.sum()) == len(route.pairs)


@given(gate=gates(), top_k=st.integers(1, 9), seed=st.integers(0, 99))
def test_experts_have_no_rank_but_their_weight(gate: Tensor, top_k: int, seed: int) -> None:
    """Renaming the experts renames the route, where no two weights are equal."""
    gate = gate + torch.rand(gate.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    gate = gate / gate.sum(-1, keepdim=True)
    order = torch.randperm(gate.shape[1], generator=torch.Generator().manual_seed(seed))
    plain = Route.select(gate, top_k=top_k, threshold=0.05, has_null=False).dense
    renamed = Route.select(gate[:, order], top_k=top_k, threshold=0.05, has_null=False).dense
    torch.testing.assert_close(renamed, plain[:, order])


@given(gate=gates(), has_null=st.booleans())
def test_a_route_on_its_own_device_is_itself(gate: Tensor, has_null: bool) -> None:
    """Nothing is copied where nothing moves; elsewhere indices and weights go along."""
    route = Route.select(gate, top_k=2, threshold=0.05, has_null=has_null)
    assert route.to(CPU) is route
    moved = route.to(torch.device("meta"))
    assert (moved.indices.device.type, moved.weights.device.type, moved.experts) == ("meta", "meta", route.experts)


@settings(deadline=None)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(0, 70),
    experts=st.integers(1, 9),
    spread=st.sampled_from([0.0, 0.1, 5.0, 200.0]),
    rho=st.floats(1e-6, 0.9),
    seed=st.integers(0, 999),
)
def test_posteriors_are_distributions_however_they_are_computed(
    batch: int, tokens: int, experts: int, spread: float, rho: float, seed: int
) -> None:
    """Rows sum to one, nothing is negative, and chunks equal the loop, for any evidence and any chance of a switch."""
    generator = torch.Generator().manual_seed(seed)
    evidence = torch.randn(batch, tokens, experts, generator=generator) * spread
    posterior = filter_chunked(evidence, start(batch, experts, CPU), rho)
    assert posterior.shape == evidence.shape
    assert bool((posterior >= 0).all())
    torch.testing.assert_close(posterior.sum(-1), torch.ones(batch, tokens, dtype=torch.float64))
    torch.testing.assert_close(posterior, filter_loop(evidence, start(batch, experts, CPU), rho), atol=1e-11, rtol=1e-8)


@given(shift=st.floats(-1e4, 1e4), seed=st.integers(0, 99))
def test_what_all_experts_share_is_no_evidence(shift: float, seed: int) -> None:
    """Adding one number to every expert's log likelihood changes no posterior."""
    evidence = torch.randn(2, 20, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    moved, plain = (filter_chunked(one, start(2, 4, CPU), 0.02) for one in (evidence + shift, evidence))
    torch.testing.assert_close(moved, plain, atol=1e-9, rtol=1e-7)
