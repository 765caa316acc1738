import functools

import torch

from moehub.router.arrow import Arrow, prototype
from moehub.router.method import Contributor
from moehub.router.settings import RouterSettings


def test_the_prototype_is_the_first_right_singular_vector() -> None:
    """It is the direction that B·A amplifies most, as the full decomposition finds it."""
    torch.manual_seed(0)
    A, B = torch.randn(4, 30), torch.randn(20, 4)
    _, values, V = torch.linalg.svd((B @ A).double())
    found = prototype(A, B)
    torch.testing.assert_close((found.double() @ V[0]).abs(), torch.tensor(1.0, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.vector_norm(B @ (A @ found)).double(), values[0], atol=1e-4, rtol=1e-4)


def test_rescaling_a_against_b_changes_nothing() -> None:
    """The prototype belongs to the product: A·1e4 and B/1e4 have the same."""
    torch.manual_seed(1)
    A, B = torch.randn(3, 12), torch.randn(9, 3)
    torch.testing.assert_close(prototype(A, B), prototype(A * 1e4, B / 1e4), atol=1e-5, rtol=0)


def test_tokens_go_where_they_are_amplified_and_absent_experts_get_none() -> None:
    """A token along an expert's prototype goes there; an expert without this linear gets nothing."""
    eye = torch.eye(6)
    adapters = {
        "first": {"q": (eye[:1] * 3, eye[:, :1])},
        "second": {"q": (eye[1:2] * 3, eye[:, :1]), "v": (eye[2:3], eye[:, :1])},
    }
    contributors = [Contributor(name, None, functools.partial(dict, pairs)) for name, pairs in adapters.items()]
    settings = RouterSettings(method="arrow", top_k=1)
    gate = Arrow().load(Arrow().solve(contributors, None, settings), ["first", "second"], settings)
    assert gate.route("q", eye[:2] * 5).dense.argmax(-1).tolist() == [0, 1]  # type: ignore[operator]
    assert gate.route("v", eye[:3]).dense.tolist() == [[0.0, 1.0]] * 3  # type: ignore[operator]
