import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

from moehub.merge.cache import GateLayer, gate_layer
from moehub.merge.merging import Recipe, prepare
from moehub.merge.model import MoehubForCausalLM
from moehub.router.window import GateState
from tests.world import CODE, LAW, World

CPU = torch.device("cpu")
IDS = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
MASK = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]]).bool()


def replay(ids: Tensor, mask: Tensor) -> GateState:
    """Return a state that says which tokens it has seen."""
    seen = (ids * mask).sum(-1, keepdim=True)
    return GateState(seen.double(), ((ids[:, -1].clone(),),))


@pytest.fixture
def layer() -> GateLayer:
    """A gate layer that has seen two texts of four tokens, in two windows."""
    layer = GateLayer(replay, batch=2, device=CPU)
    layer.advance(IDS[:, :1], MASK[:, :1], replay(IDS[:, :1], MASK[:, :1]))
    layer.advance(IDS[:, 1:], MASK[:, 1:], replay(IDS, MASK))
    return layer


def knows(layer: GateLayer, ids: Tensor, mask: Tensor) -> bool:
    assert layer.state is not None
    expected = replay(ids, mask)
    return (
        torch.equal(layer.ids, ids)
        and torch.equal(layer.mask, mask)
        and torch.equal(layer.state.belief, expected.belief)
        and torch.equal(layer.state.memories[0][0], expected.memories[0][0])
    )


def test_windows_add_up(layer: GateLayer) -> None:
    """Tokens and mask of all windows are kept, and the state is the newest."""
    assert knows(layer, IDS, MASK)


def test_cropping_goes_back_and_nothing_to_crop_changes_nothing(layer: GateLayer) -> None:
    """After a crop of two the layer knows the first two tokens only; a crop of zero is no crop."""
    before = layer.state
    layer.crop(0)
    assert layer.state is before
    layer.crop(-2)
    assert knows(layer, IDS[:, :2], MASK[:, :2])


def test_cropping_everything_is_the_beginning(layer: GateLayer) -> None:
    """Without tokens there is no state: the next window begins anew."""
    layer.crop(-4)
    assert layer.state is None
    assert layer.ids.shape == layer.mask.shape == (2, 0)


def test_resetting_forgets_and_can_be_used_again(layer: GateLayer) -> None:
    """A reset layer takes the next text as if it were new."""
    layer.reset()
    assert layer.state is None
    layer.advance(IDS, MASK, replay(IDS, MASK))
    assert knows(layer, IDS, MASK)


def test_beams_take_their_states_along(layer: GateLayer) -> None:
    """Reordered, repeated and selected rows hold their own text's tokens, mask and state."""
    layer.reorder_cache(torch.tensor([1, 1]))
    assert knows(layer, IDS[[1, 1]], MASK[[1, 1]])
    layer.batch_repeat_interleave(2)
    assert knows(layer, IDS[[1, 1, 1, 1]], MASK[[1, 1, 1, 1]])


def test_repeating_keeps_copies_side_by_side(layer: GateLayer) -> None:
    """Each text's copies stand beside each other, as the keys' and values' do; boolean masks select too."""
    layer.batch_repeat_interleave(2)
    assert knows(layer, IDS[[0, 0, 1, 1]], MASK[[0, 0, 1, 1]])
    layer.batch_select_indices(torch.tensor([False, True, True, False]))
    assert knows(layer, IDS, MASK)


def test_rows_may_move_before_the_first_token() -> None:
    """A layer that has seen nothing has no state to move, and forgets nothing by it."""
    layer = GateLayer(replay, batch=2, device=CPU)
    layer.batch_repeat_interleave(3)
    layer.crop(0)
    assert (layer.state, layer.ids.shape) == (None, (6, 0))


def test_a_copied_cache_lives_its_own_life(layer: GateLayer) -> None:
    """A copy starts with the same knowledge; what one sees later the other does not."""
    twin = copy.deepcopy(layer)
    assert knows(twin, IDS, MASK)
    twin.crop(-1)
    assert knows(layer, IDS, MASK)
    assert knows(twin, IDS[:, :3], MASK[:, :3])


def test_the_gates_layer_stands_behind_the_bases() -> None:
    """It is added once, behind as many layers as the base has, even where a cache grows its layers lazily."""
    lazy = DynamicCache()
    first = gate_layer(lazy, replay, layers=3, batch=2, device=CPU)
    assert len(lazy.layers) == 4
    assert lazy.layers[3] is first
    assert gate_layer(lazy, replay, layers=3, batch=2, device=CPU) is first
    assert len(lazy.layers) == 4


@pytest.fixture(scope="module")
def moe(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoE of all three experts."""
    folder = tmp_path_factory.mktemp("cache") / "moe"
    with prepare(Recipe(base=str(world.base), experts=world.references(), null=str(world.null))) as prepared:
        prepared.write(folder)
    return folder


@torch.no_grad()
def test_a_cache_made_without_a_configuration_works(moe: Path) -> None:
    """People pass `DynamicCache()`, which knows nothing of the model: decoding equals one forward all the same."""
    model: MoehubForCausalLM = AutoModelForCausalLM.from_pretrained(moe)
    ids = AutoTokenizer.from_pretrained(moe)(LAW + CODE, return_tensors="pt")["input_ids"]
    cache = DynamicCache()
    parts = [model(part, past_key_values=cache).logits for part in ids.split(9, dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), model(ids, use_cache=False).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_one_prefix_serves_many_continuations(moe: Path) -> None:
    """The prefix's cache is copied for each continuation, as transformers documents, without copying the model."""
    model: MoehubForCausalLM = AutoModelForCausalLM.from_pretrained(moe)
    tokenizer = AutoTokenizer.from_pretrained(moe)
    prefix = tokenizer(LAW, return_tensors="pt")["input_ids"]
    cache = DynamicCache(config=model.config.get_text_config())
    model(prefix, past_key_values=cache)
    for continuation in (CODE, LAW, "12 + 30"):
        ids = torch.cat([prefix, tokenizer(continuation, return_tensors="pt")["input_ids"]], 1)
        mine = copy.deepcopy(cache)
        assert isinstance(mine.layers[-1], GateLayer)
        assert mine.layers[-1].replay == cache.layers[-1].replay == model._replay
        options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 6, "do_sample": False}
        assert torch.equal(model.generate(ids, past_key_values=mine, **options), model.generate(ids, **options))
    assert cache.get_seq_length() == prefix.shape[1]
