import torch

from moehub.router.route import Route


def test_the_most_probable_stay_and_are_renormalised() -> None:
    """Of a posterior the two largest stay and sum to one."""
    route = Route.select(torch.tensor([[0.5, 0.3, 0.2]]), top_k=2, threshold=0.05, has_null=False)
    torch.testing.assert_close(route.dense, torch.tensor([[0.625, 0.375, 0.0]]))


def test_the_null_takes_a_place_and_adds_nothing() -> None:
    """Where the null expert is among the chosen its share goes to nobody."""
    route = Route.select(torch.tensor([[0.3, 0.1, 0.6]]), top_k=2, threshold=0.05, has_null=True)
    torch.testing.assert_close(route.dense, torch.tensor([[1 / 3, 0.0]]))
    alone = Route.select(torch.tensor([[0.02, 0.01, 0.97]]), top_k=2, threshold=0.05, has_null=True)
    assert len(alone.pairs) == 0


def test_small_weights_are_dropped_but_never_all() -> None:
    """Below the threshold a weight is dropped, except the largest."""
    route = Route.select(torch.tensor([[0.97, 0.03], [0.5, 0.5]]), top_k=2, threshold=0.6, has_null=False)
    torch.testing.assert_close(route.dense, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))


def test_more_places_than_experts() -> None:
    """A top_k beyond the experts that are left chooses all of them."""
    route = Route.select(torch.tensor([[0.25, 0.75]]), top_k=8, threshold=0.0, has_null=False)
    torch.testing.assert_close(route.dense, torch.tensor([[0.25, 0.75]]))


def test_pairs_are_sorted_by_expert_then_token() -> None:
    """The sorted view holds every active pair once, grouped by expert."""
    route = Route(torch.tensor([[1, 0], [0, 2], [1, 2]]), torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.3, 0.7]]), 4)
    assert route.sorted_experts.tolist() == [0, 0, 1, 1, 2]
    assert route.tokens.tolist() == [0, 1, 0, 2, 2]
    torch.testing.assert_close(route.sorted_weights, torch.tensor([0.5, 1.0, 0.5, 0.3, 0.7]))
    assert route.offsets.tolist() == [2, 4, 5, 5]


def test_fixed_routes() -> None:
    """A fixed route sends every token to one expert, or to none."""
    device = torch.device("cpu")
    assert Route.fixed(2, tokens=3, experts=4, device=device).dense.tolist() == [[0, 0, 1, 0]] * 3
    assert Route.fixed(None, tokens=2, experts=4, device=device).dense.tolist() == [[0, 0, 0, 0]] * 2
