from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer

from moehub.merge.merging import Recipe, prepare, prepare_change
from moehub.merge.model import MoehubForCausalLM
from moehub.router.settings import RouterSettings
from moehub.router.window import Window
from tests.world import CODE, LAW, World


def assembled(world: World, folder: Path, method: str) -> Path:
    recipe = Recipe(
        base=str(world.base),
        experts=tuple(map(str, world.experts.values())),
        null=str(world.null),
        router=RouterSettings(method=method),
    )
    with prepare(recipe) as prepared:
        prepared.write(folder)
    return folder


@pytest.fixture(scope="module", params=["likelihood", "evidence+likelihood"])
def moe(world: World, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """A MoE whose gate asks the experts."""
    return assembled(world, tmp_path_factory.mktemp("moe") / "moe", request.param)


def encoded(moe: Path, text: str) -> Tensor:
    ids: Tensor = AutoTokenizer.from_pretrained(moe)(text, return_tensors="pt")["input_ids"]
    return ids


def load(moe: Path) -> MoehubForCausalLM:
    return MoehubForCausalLM.from_pretrained(moe, dtype=torch.float32)


@torch.no_grad()
def test_every_column_is_that_experts_own_likelihood(moe: Path) -> None:
    """What is heard of an expert is what it says when every token is forced to it; the null's is the base's."""
    model, ids = load(moe), encoded(moe, CODE)
    mask = torch.ones_like(ids, dtype=torch.bool)
    nats, _ = model._audition(ids, mask, ())
    for column, name in enumerate([*model.names, "null"]):
        with model.forced(name):
            logs = model(ids, use_cache=False).logits[0, :-1].log_softmax(-1)
        torch.testing.assert_close(nats[0, 1:, column], logs.gather(-1, ids[0, 1:, None])[:, 0], atol=1e-4, rtol=1e-4)
    assert not nats[0, 0].any()


@torch.no_grad()
@pytest.mark.parametrize("cut", [1, 7])
def test_a_text_in_two_windows_is_heard_as_one(moe: Path, cut: int) -> None:
    """The memory holds each expert's cache, and what it foretold across the cut."""
    model, ids = load(moe), encoded(moe, LAW)
    mask = torch.ones_like(ids, dtype=torch.bool)
    whole, _ = model._audition(ids, mask, ())
    first, memory = model._audition(ids[:, :cut], mask[:, :cut], ())
    second, _ = model._audition(ids[:, cut:], mask[:, cut:], memory)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_before_a_text_changes_nothing(moe: Path) -> None:
    """A padded row is heard as the text alone, and padding says nothing."""
    model, ids = load(moe), encoded(moe, LAW)
    mask = torch.ones_like(ids, dtype=torch.bool)
    alone, _ = model._audition(ids, mask, ())
    padded, _ = model._audition(
        torch.cat([ids[:, :5], ids], 1), torch.cat([torch.zeros_like(mask[:, :5]), mask], 1), ()
    )
    torch.testing.assert_close(padded[:, 5:], alone, atol=1e-4, rtol=1e-4)
    assert not padded[:, :5].any()


@torch.no_grad()
def test_generation_with_a_cache_is_that_without(moe: Path) -> None:
    """Greedy tokens are the same whether caches are kept or everything is read again."""
    model, ids = load(moe), encoded(moe, CODE)[:, :12]
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(ids)}
    cached = model.generate(ids, use_cache=True, **options)
    assert torch.equal(cached, model.generate(ids, use_cache=False, **options))
    beams = model.generate(ids, num_beams=3, **options)
    assert beams.shape[1] == ids.shape[1] + 6


@torch.no_grad()
def test_without_an_expert_is_the_moe_that_never_had_it(moe: Path, world: World, tmp_path: Path) -> None:
    """Leaving one out in memory asks the others alone, as the MoE does that was made without it."""
    whole, ids = load(moe), encoded(moe, LAW)
    fewer = assembled(world, tmp_path / "moe", whole.config.router["method"])
    with prepare_change(fewer, remove=["law"]) as change:
        change.write()
    with whole.without("law"):
        mine = whole(ids, use_cache=False).logits
    torch.testing.assert_close(mine, load(fewer)(ids, use_cache=False).logits, atol=1e-4, rtol=1e-4)


def test_a_gate_without_a_model_says_so(moe: Path) -> None:
    """Evidence of experts cannot be had from tables alone: one sentence tells."""
    gate, ids = load(moe).gate, encoded(moe, CODE)
    window = Window(ids, torch.ones_like(ids, dtype=torch.bool), torch.Tensor)
    with pytest.raises(Exception, match="asks the experts of a whole MoE"):
        gate(window, gate.begin(1, ids.device))  # type: ignore[operator]
