import itertools
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moehub import files
from moehub.errors import MergeError
from moehub.merge.assemble import ROUTER_FILE, read_tables
from moehub.merge.merging import Recipe, prepare, prepare_change
from moehub.merge.model import MoehubForCausalLM
from moehub.router.settings import RouterSettings
from tests.world import CODE, GENERIC, LAW, MATH, World

METHODS = ["lda", "evidence+lda"]


def merge(world: World, output: Path, *names: str, method: str, null: bool = True) -> Path:
    recipe = Recipe(
        str(world.base), world.references(*names), str(world.null) if null else None, RouterSettings(method=method)
    )
    with prepare(recipe) as prepared:
        prepared.write(output)
    return output


def load(moe: Path) -> tuple[MoehubForCausalLM, torch.Tensor]:
    ids = AutoTokenizer.from_pretrained(moe)((LAW + CODE + MATH) * 2, return_tensors="pt")["input_ids"]
    return AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32), ids


@pytest.mark.parametrize("method", METHODS)
def test_every_order_gives_the_same_bytes(described: World, tmp_path: Path, method: str) -> None:
    """The pooled covariance is everybody's, and still does not depend on the order of the experts."""
    digests = {
        files.tree_digest(merge(described, tmp_path / str(number), *order, method=method))
        for number, order in enumerate(itertools.permutations(described.experts))
    }
    assert len(digests) == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("null", [True, False], ids=["with null", "without null"])
def test_changes_leave_no_trace(described: World, tmp_path: Path, method: str, null: bool) -> None:
    """Removing equals never having had, and adding equals merging at once, though every column changes."""
    never = merge(described, tmp_path / "never", "law", "math", method=method, null=null)
    whole = merge(described, tmp_path / "whole", method=method, null=null)
    before = files.tree_digest(whole)
    with prepare_change(whole, remove=("code",)) as change:
        change.write()
    assert files.tree_digest(whole) == files.tree_digest(never)
    with prepare_change(whole, add=described.references("code")) as change:
        change.write()
    assert files.tree_digest(whole) == before


def test_a_new_expert_moves_everybodys_discriminant_and_nobodys_counts(described: World, tmp_path: Path) -> None:
    """In evidence+lda the counts' tables stay byte for byte, the discriminants are solved anew."""
    moe = merge(described, tmp_path / "moe", "law", "math", method="evidence+lda")
    before = read_tables(moe)
    with prepare_change(moe, add=described.references("code")) as change:
        change.write()
    after = read_tables(moe)
    same = {name: torch.equal(after[name], tensor) for name, tensor in before.items()}
    assert all(same[name] for name in before if name.startswith("evidence/"))
    assert not any(same[name] for name in before if name.startswith("lda/") and name.endswith("/weight"))
    assert (moe / ROUTER_FILE).is_file()


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_cached_decoding_equals_one_forward(described: World, tmp_path: Path, method: str) -> None:
    """The running means of hidden states go through the cache: prefill and single tokens equal one forward."""
    model, ids = load(merge(described, tmp_path / "moe", method=method))
    whole = model(ids, use_cache=False).logits
    output = model(ids[:, :9], use_cache=True)
    steps = [output.logits]
    for position in range(9, ids.shape[1]):
        output = model(ids[:, position : position + 1], past_key_values=output.past_key_values, use_cache=True)
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"prompt_lookup_num_tokens": 3}], ids=str)
def test_generation_with_the_cache_equals_generation_without(
    described: World, tmp_path: Path, options: dict[str, int]
) -> None:
    """Beams and assistants reorder and crop the means of hidden states too."""
    model, ids = load(merge(described, tmp_path / "moe", method="evidence+lda"))
    common = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    plain = {} if "prompt_lookup_num_tokens" in options else options
    assert torch.equal(
        model.generate(ids, **common, **options), model.generate(ids, **common, **plain, use_cache=False)
    )


@torch.no_grad()
def test_hidden_states_find_the_expert(described: World, tmp_path: Path) -> None:
    """With hidden states beside the words each domain's text goes to its expert, generic text to nobody."""
    moe = merge(described, tmp_path / "moe", method="evidence+lda")
    model, tokenizer = load(moe)[0], AutoTokenizer.from_pretrained(moe)
    for text, column in ((LAW, "law"), (CODE, "code"), (MATH, "math"), (GENERIC, "null")):
        ids = tokenizer(text * 2, return_tensors="pt")["input_ids"]
        weights = model.trace(ids)[0, 6:].mean(0)
        assert [*model.names, "null"][int(weights.argmax())] == column


@torch.no_grad()
def test_a_generation_from_a_batch_with_padding(described: World, tmp_path: Path) -> None:
    """A short prompt beside a long one writes what it writes alone: padding is in no mean."""
    moe = merge(described, tmp_path / "moe", method="lda")
    model, tokenizer = load(moe)[0], AutoTokenizer.from_pretrained(moe, padding_side="left")
    prompts = [LAW + CODE, "def add"]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    together = model.generate(**batch, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    alone = tokenizer(prompts[1], return_tensors="pt")
    single = model.generate(**alone, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    assert together[1, batch["input_ids"].shape[1] :].tolist() == single[0, alone["input_ids"].shape[1] :].tolist()


def test_experts_without_sums_cannot_be_merged_by_hidden_states(described: World, world: World, tmp_path: Path) -> None:
    """An expert that published counts only is named with the cure; so is a null without sums."""
    with (
        pytest.raises(MergeError, match=r"law: it has no feature sums: train it with --set features=true"),
    ):
        merge(world, tmp_path / "moe", "law", method="lda", null=False)
    null = Recipe(str(described.base), described.references("law"), str(world.experts["code"]), RouterSettings("lda"))
    with pytest.raises(MergeError, match="the null expert: it has no feature sums"), prepare(null) as prepared:
        prepared.write(tmp_path / "moe")
    assert not (tmp_path / "moe").exists()
