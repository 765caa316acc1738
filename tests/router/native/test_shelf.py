from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from moehub.errors import RouterError
from moehub.experts.adapter import Adapter, MappedPairs
from moehub.router.layer import Switchboard
from moehub.router.native.layer import ShelvedLinear
from moehub.router.native.shelf import ConvertedVolume, MappedVolume, Shelf
from moehub.router.route import Route
from moehub.tensorfile import TensorFile

EXPERTS, IN, OUT, RANK = 4, 32, 64, 8
SIZE = 4 * RANK * (IN + OUT)


def written(folder: Path, dtype: torch.dtype) -> list[Adapter]:
    """Return experts in files of their own."""
    adapters = []
    for number in range(EXPERTS):
        generator = torch.Generator().manual_seed(number)
        tensors = {
            "A": torch.randn(RANK, IN, generator=generator).to(dtype),
            "B": torch.randn(OUT, RANK, generator=generator).to(dtype),
        }
        save_file(tensors, folder / f"{number}.safetensors")
        pairs = MappedPairs(TensorFile(folder / f"{number}.safetensors"), {"linear": ("A", "B")})
        adapters.append(Adapter(pairs, {"linear": 1.0}))
    return adapters


def answer(shelf: Shelf, route: Route, x: Tensor) -> Tensor:
    layer = ShelvedLinear(nn.Linear(IN, OUT), key="linear", shelf=shelf, board=Switchboard())
    with torch.no_grad():
        return layer.add(x, torch.zeros(len(x), OUT, dtype=x.dtype), route)


def to(*experts: int) -> Route:
    """Return a route of one token to each of some experts."""
    return Route(torch.tensor(experts)[:, None], torch.ones(len(experts), 1), EXPERTS)


@pytest.mark.parametrize(("stored", "volume"), [(torch.float32, MappedVolume), (torch.bfloat16, ConvertedVolume)])
def test_experts_of_either_precision_are_read(tmp_path: Path, stored: torch.dtype, volume: type) -> None:
    """What lies in the base's precision is used where it lies, another precision is converted; both are right."""
    adapters, x = written(tmp_path, stored), torch.randn(EXPERTS, IN)
    shelf = Shelf(adapters, torch.float32)
    assert all(isinstance(one, volume) for one in shelf.volumes)
    expected = torch.stack(
        [x[number] @ A.float().T @ B.float().T for number, one in enumerate(adapters) for A, B in one.pairs.values()]
    )
    torch.testing.assert_close(answer(shelf, to(0, 1, 2, 3), x), expected, atol=1e-4, rtol=1e-5)


def test_an_expert_is_brought_when_a_token_is_routed_to_it(tmp_path: Path) -> None:
    """Nobody's adapter is in memory before somebody needs it."""
    shelf = Shelf(written(tmp_path, torch.bfloat16), torch.float32)
    assert (shelf.usage.resident, shelf.usage.brought) == (0, 0)
    answer(shelf, to(2, 2), torch.randn(2, IN))
    assert (shelf.usage.resident, shelf.usage.brought) == (SIZE, 1)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
def test_the_one_used_the_longest_ago_goes_first(tmp_path: Path, stored: torch.dtype) -> None:
    """With room for two, a third expert takes the place of the one that nobody asked for since."""
    adapters = written(tmp_path, stored)
    size = Shelf(adapters, torch.float32).volumes[0].size
    shelf, x = Shelf(adapters, torch.float32, limit=2 * size), torch.randn(1, IN)
    alone = Shelf(adapters, torch.float32)
    for expert, brought in ((0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4), (3, 5)):
        torch.testing.assert_close(answer(shelf, to(expert), x), answer(alone, to(expert), x))
        assert shelf.usage.brought == brought
        assert shelf.usage.resident <= 2 * size


def test_all_experts_of_one_forward_stay_for_it(tmp_path: Path) -> None:
    """A limit below what a single forward needs is exceeded, never answered wrongly."""
    adapters, x = written(tmp_path, torch.bfloat16), torch.randn(EXPERTS, IN)
    expected = answer(Shelf(adapters, torch.float32), to(0, 1, 2, 3), x)
    shelf = Shelf(adapters, torch.float32, limit=1)
    assert torch.equal(answer(shelf, to(0, 1, 2, 3), x), expected)
    answer(shelf, to(1), x[:1])
    assert shelf.usage.resident == SIZE


def test_a_route_from_before_asks_for_its_experts_again(tmp_path: Path) -> None:
    """Who kept a route while its expert was put back gets the same answer as before."""
    shelf, x = Shelf(written(tmp_path, torch.bfloat16), torch.float32, limit=SIZE), torch.randn(1, IN)
    first = to(0)
    expected = answer(shelf, first, x)
    answer(shelf, to(1), x)
    assert torch.equal(answer(shelf, first, x), expected)


def test_experts_of_different_bases_are_refused() -> None:
    """Two widths of one linear cannot stand on one shelf."""
    narrow = Adapter({"linear": (torch.zeros(2, 8), torch.zeros(4, 2))}, {"linear": 1.0})
    wide = Adapter({"linear": (torch.zeros(2, 9), torch.zeros(4, 2))}, {"linear": 1.0})
    with pytest.raises(RouterError, match=r"see the linear 'linear' as \(4, 8\) and \(4, 9\)"):
        Shelf([narrow, wide], torch.float32)
