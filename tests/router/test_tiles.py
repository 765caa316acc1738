import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from moehub.router.tiles import Tiles

CASES = {  # tokens, experts, slots
    "few": (5, 3, 2),
    "one": (1, 4, 2),
    "many of few": (300, 2, 2),
    "few of many": (40, 100, 3),
    "one expert": (70, 1, 1),
}


def chosen(tokens: int, experts: int, slots: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random experts and weights, about a third of them zero."""
    generator = torch.Generator().manual_seed(tokens)
    indices = torch.randint(experts, (tokens, slots), generator=generator)
    weights = torch.rand(tokens, slots, generator=generator)
    return indices, weights * (torch.rand(tokens, slots, generator=generator) > 0.35)


@pytest.mark.parametrize("case", CASES)
def test_every_pair_is_in_one_tile_of_its_expert(case: str) -> None:
    """For each slot the used tiles cover all tokens once, none holds two experts, and none is too long."""
    tokens, experts, slots = CASES[case]
    indices, weights = chosen(tokens, experts, slots)
    tiles = Tiles.of(indices, weights, experts)
    for slot in range(slots):
        seen: list[int] = []
        for expert, first, last in tiles.table[slot].tolist():
            assert 0 <= last - first <= tiles.size
            for token in tiles.order[slot, first:last].tolist():
                assert expert == (int(indices[token, slot]) if weights[token, slot] else experts)
                seen.append(token)
        assert sorted(seen) == list(range(tokens))


@pytest.mark.parametrize("case", CASES)
def test_experts_end_where_the_next_begins(case: str) -> None:
    """The ends are the running count of each expert's tokens, those of the inactive ones last."""
    tokens, experts, slots = CASES[case]
    indices, weights = chosen(tokens, experts, slots)
    tiles = Tiles.of(indices, weights, experts)
    for slot in range(slots):
        bins = torch.where(weights[:, slot] == 0, experts, indices[:, slot])
        assert tiles.ends[slot].tolist() == torch.bincount(bins, minlength=experts + 1).cumsum(0).tolist()


def test_sizes_do_not_depend_on_the_route() -> None:
    """Tensors without values give the same shapes: nothing asks the device who was chosen."""
    indices, weights = chosen(*CASES["few of many"])
    real = Tiles.of(indices, weights, 100)
    with FakeTensorMode() as fake:
        made = Tiles.of(fake.from_tensor(indices), fake.from_tensor(weights), 100)
    assert [one.shape for one in (made.order, made.ends, made.table)] == [
        one.shape for one in (real.order, real.ends, real.table)
    ]
