import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moehub import files
from moehub.errors import MergeError, RouterError
from moehub.merge.assemble import read_tables
from moehub.merge.merging import Recipe, prepare, prepare_change
from moehub.merge.model import MoehubForCausalLM
from moehub.router.backends import NATIVE
from moehub.router.gate import load_gate
from moehub.router.settings import RouterSettings
from tests.world import CODE, LAW, MATH, World

TEXT = (LAW + CODE + MATH) * 2
METHODS = ["evidence", "lda", "evidence+lda", "arrow"]
BACKENDS = [NATIVE, "loop", "dense", "grouped"]


def merge(world: World, output: Path, *names: str, method: str, null: bool = True) -> Path:
    recipe = Recipe(
        str(world.base), world.references(*names), str(world.null) if null else None, RouterSettings(method=method)
    )
    with prepare(recipe) as prepared:
        prepared.write(output)
    return output


def removed(moe: Path, name: str) -> Path:
    """Return a copy of the MoE from which an expert was really taken out."""
    output = moe.with_name(f"{moe.name}-without-{name}")
    shutil.copytree(moe, output)
    with prepare_change(output, remove=(name,)) as change:
        change.write()
    return output


def load(moe: Path, **options: object) -> MoehubForCausalLM:
    model = AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32, **options)
    assert isinstance(model, MoehubForCausalLM)
    return model


def encoded(moe: Path, text: str = TEXT) -> torch.Tensor:
    ids: torch.Tensor = AutoTokenizer.from_pretrained(moe)(text, return_tensors="pt")["input_ids"]
    return ids


def columns(weights: torch.Tensor, names: Sequence[str], wanted: Sequence[str]) -> torch.Tensor:
    """Return the columns of a trace that belong to the wanted experts, and nobody's."""
    return weights[..., [*(names.index(name) for name in wanted), len(names)]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("null", [True, False], ids=["with null", "without null"])
@torch.no_grad()
def test_without_an_expert_it_is_the_moe_that_removing_it_makes(
    described: World, tmp_path: Path, method: str, null: bool
) -> None:
    """Logits and routes are those of the folder that `merge --remove` leaves, and other than those of the whole."""
    moe = merge(described, tmp_path / "moe", method=method, null=null)
    model, ids = load(moe), encoded(moe)
    whole = model(ids).logits
    for name in model.names:
        made = load(removed(moe, name))
        with model.without(name):
            mine, routed = model(ids).logits, model.trace(ids)
        torch.testing.assert_close(mine, made(ids).logits, atol=1e-6, rtol=0)
        torch.testing.assert_close(columns(routed, model.names, made.names), made.trace(ids), atol=1e-6, rtol=0)
        assert not routed[..., model.names.index(name)].any()
        assert (mine - whole).abs().max() > 1e-3
    assert torch.equal(model(ids).logits, whole)


@pytest.mark.parametrize("method", METHODS)
def test_the_gate_has_the_tables_that_removing_makes(described: World, tmp_path: Path, method: str) -> None:
    """To the bit, also where everybody's tables are solved anew."""
    moe = merge(described, tmp_path / "moe", method=method)
    made, model = removed(moe, "law"), load(moe)
    expected = load_gate(read_tables(made), RouterSettings(method=method), names=["code", "math"], has_null=True)
    with model.without("law"):
        mine = dict(model.gate.named_parameters())
    tables = dict(expected.named_parameters())
    assert list(mine) == list(tables)
    assert all(torch.equal(mine[name], table) for name, table in tables.items())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["evidence", "arrow"])
@torch.no_grad()
def test_every_backend_finds_the_experts_that_remain(world: World, tmp_path: Path, backend: str, method: str) -> None:
    """On a shelf and in stacks; also where one expert alone changes a linear, as `code` does here."""
    moe = merge(world, tmp_path / "moe", method=method)
    model, ids = load(moe, backend=backend), encoded(moe)
    for name in model.names:
        with model.without(name):
            mine = model(ids).logits
        torch.testing.assert_close(mine, load(removed(moe, name))(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_without_its_only_expert_it_is_the_base(world: World, tmp_path: Path) -> None:
    """`merge --remove` leaves no MoE without experts; here the base answers, to the bit."""
    moe = merge(world, tmp_path / "moe", "law", method="evidence", null=False)
    model, ids = load(moe), encoded(moe)
    with model.forced("null"):
        base = model(ids).logits
    with model.without("law"):
        assert torch.equal(model(ids).logits, base)


@torch.no_grad()
def test_it_writes_what_the_moe_without_the_expert_writes(world: World, tmp_path: Path) -> None:
    """The gate's state in the cache is that of the gate that has no column for the expert."""
    moe = merge(world, tmp_path / "moe", method="evidence")
    model, ids = load(moe), encoded(moe)
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}
    with model.without("code"):
        mine = model.generate(ids, **options)
    assert torch.equal(mine, load(removed(moe, "code")).generate(ids, **options))


def test_nothing_is_written_and_everything_is_back(world: World, tmp_path: Path) -> None:
    """The folder keeps every byte; after the block, and after an error in it, the gate is the one from before."""
    moe = merge(world, tmp_path / "moe", method="evidence")
    model, before = load(moe), files.tree_digest(moe)
    gate = model.gate
    with pytest.raises(ZeroDivisionError), model.without("law"):
        raise ZeroDivisionError
    assert model.gate is gate
    assert files.tree_digest(moe) == before


@pytest.mark.parametrize("name", ["physics", "null"])
def test_who_is_not_there_cannot_be_left_out(world: World, tmp_path: Path, name: str) -> None:
    """The sentence names who is."""
    model = load(merge(world, tmp_path / "moe", method="evidence"))
    with pytest.raises(RouterError, match=rf"no expert '{name}' in this MoE, expected code, law, math$"):
        model.without(name).__enter__()


def test_a_folder_that_was_changed_meanwhile_is_refused(world: World, tmp_path: Path) -> None:
    """The gate would be that of other experts than those in memory."""
    moe = merge(world, tmp_path / "moe", method="evidence")
    model = load(moe)
    with prepare_change(moe, remove=("math",)) as change:
        change.write()
    with pytest.raises(MergeError, match="was changed since it was loaded: load it again"):
        model.without("law").__enter__()
