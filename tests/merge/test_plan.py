import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, STATISTICS_FILE, read_card
from moehub.errors import MergeError
from moehub.experts.adapter import read_adapter
from moehub.experts.folder import open_expert, seal
from moehub.merge.merging import Recipe, prepare
from moehub.merge.plan import Plan
from moehub.router.settings import RouterSettings
from tests.builders import tiny_base, tiny_expert
from tests.world import CODE, LAW, World


def plan(world: World, *experts: Path, **options: Any) -> Plan:
    null = options.pop("null", str(world.null))
    asked = options.pop("top_k_was_asked_for", False)
    recipe = Recipe(base=str(world.base), experts=tuple(map(str, experts)), null=null, router=RouterSettings(**options))
    with prepare(recipe, top_k_was_asked_for=asked) as prepared:
        return prepared.plan


def changed(world: World, folder: Path, *, name: str = "law", **facts: Any) -> Path:
    """Return a copy of an expert whose adapter configuration says something else, sealed again."""
    shutil.copytree(world.experts[name], folder)
    config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config | facts), encoding="utf-8")
    seal(folder, read_card(folder))
    return folder


def test_experts_that_fit_have_no_faults(world: World) -> None:
    """Different ranks and targets on one base fit together, in the order of their names."""
    found = plan(world, *world.experts.values())
    assert (found.faults, found.notes) == ((), ())
    assert [source.expert.name for source in found.sources] == ["code", "law", "math"]


def test_all_faults_are_reported_together(world: World, tmp_path: Path) -> None:
    """Another base, a forbidding licence, a missing statistics file, a double name and top_k: one list names all."""
    other = tiny_base(tmp_path / "other", seed=5)
    stranger = tiny_expert(tmp_path / "stranger", other, name="stranger")
    closed = tiny_expert(tmp_path / "closed", world.base, name="closed", license="cc-by-nd-4.0")
    double = tiny_expert(tmp_path / "double", world.base, name="law", text=LAW * 30, seed=8)
    silent = tiny_expert(tmp_path / "silent", world.base, name="silent")
    (silent / STATISTICS_FILE).unlink()
    seal(silent, read_card(silent))
    found = plan(world, world.experts["law"], stranger, closed, double, silent, top_k=9, top_k_was_asked_for=True)
    expected = [
        "2 experts are called 'law'",
        "--top-k 9 is more than the 5 experts and the null expert there are: choose at most 6",
        f"{stranger}: [base] it was trained on the base 'other'",
        f"{closed}: [licence] its licence 'cc-by-nd-4.0' forbids adaptations",
        "silent: it was published without router statistics",
    ]
    assert len(found.faults) == len(expected)
    for fault, beginning in zip(found.faults, expected, strict=True):
        assert fault.startswith(beginning)
    with pytest.raises(MergeError) as caught:
        found.require()
    assert all(beginning in str(caught.value) for beginning in expected)


def test_a_base_of_another_shape_is_named(world: World, tmp_path: Path) -> None:
    """Shapes are compared even where a card lies about the base."""
    wide = tiny_base(tmp_path / "wide", hidden_size=64, intermediate_size=32)
    liar = tiny_expert(tmp_path / "liar", wide, name="liar")
    card = json.loads((liar / "expert.json").read_text(encoding="utf-8"))
    card["base"] = json.loads((world.experts["law"] / "expert.json").read_text(encoding="utf-8"))["base"]
    (liar / "expert.json").write_text(json.dumps(card), encoding="utf-8")
    faults = plan(world, liar).faults
    assert any(
        "[linear-shape] its update of 'model.layers.0.mlp.down_proj' is 64 × 32, expected 32 × 48" in one
        for one in faults
    )


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"use_qalora": True}, "its use_qalora = True cannot be part of a MoE (it pools its inputs)"),
        ({"bias": "all"}, "its bias = 'all' changes the base's biases"),
        ({"modules_to_save": ["lm_head"]}, "it replaces whole modules of the base"),
        ({"peft_type": "IA3"}, "it is a IA3 adapter, expected LORA"),
        ({"init_lora_weights": "pissa"}, "its init_lora_weights = 'pissa' changes the base's weights"),
    ],
)
def test_what_the_layer_does_not_compute_is_refused(
    world: World, tmp_path: Path, facts: dict[str, Any], sentence: str
) -> None:
    """Every option of PEFT that would be silently ignored is a fault."""
    faults = plan(world, changed(world, tmp_path / "changed", **facts)).faults
    assert len(faults) == 1
    assert sentence in faults[0]


def test_values_that_are_not_finite_are_refused(world: World, tmp_path: Path) -> None:
    """A NaN in an adapter is named with its tensor and a cure."""
    folder = tmp_path / "nan"
    shutil.copytree(world.experts["law"], folder)
    tensors = load_file(folder / ADAPTER_WEIGHTS)
    name = next(iter(tensors))
    tensors[name][0, 0] = torch.nan
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    seal(folder, read_card(folder))
    (fault,) = plan(world, folder).faults
    assert f"[finite] adapter_model.safetensors holds values that are not finite in {name!r}" in fault
    assert "smaller learning rate" in fault


def test_tensors_that_are_no_lora_are_refused(world: World, tmp_path: Path) -> None:
    """An embedding or a whole module in the adapter's file is a fault."""
    folder = tmp_path / "extra"
    shutil.copytree(world.experts["law"], folder)
    tensors = load_file(folder / ADAPTER_WEIGHTS) | {"base_model.model.lm_head.weight": torch.zeros(2, 2)}
    save_file(tensors, folder / ADAPTER_WEIGHTS)
    seal(folder, read_card(folder))
    (fault,) = plan(world, folder).faults
    assert "a tensor 'base_model.model.lm_head.weight', expected only lora_A and lora_B" in fault


def test_truncated_weights_are_refused_before_anything_is_planned(world: World, tmp_path: Path) -> None:
    """Half a safetensors file is refused, together with what stands in the way elsewhere."""
    folder = tmp_path / "half"
    shutil.copytree(world.experts["law"], folder)
    content = (folder / ADAPTER_WEIGHTS).read_bytes()
    (folder / ADAPTER_WEIGHTS).write_bytes(content[: len(content) // 2])
    silent = tiny_expert(tmp_path / "silent", world.base, name="silent")
    (silent / STATISTICS_FILE).unlink()
    refused, other = plan(world, folder, silent).faults
    assert refused.startswith(f"{folder}: [tensor-offsets] the tensors in adapter_model.safetensors end at byte")
    assert other.startswith(f"{silent}: [pinned-files] router_stats.safetensors is missing")


def test_different_numbers_of_buckets_are_refused(world: World, tmp_path: Path) -> None:
    """Pairs hashed into different numbers of buckets cannot be compared."""
    folder = tiny_expert(tmp_path / "code", world.base, name="code", text=CODE * 30, pair_bits=12)
    (fault,) = plan(world, world.experts["law"], folder).faults
    assert "different numbers of buckets (code 2^12, law 2^10, null 2^10)" in fault


def test_different_numbers_of_triple_buckets_are_refused(world: World, tmp_path: Path) -> None:
    """Triples are compared like pairs."""
    folder = tiny_expert(tmp_path / "code", world.base, name="code", text=CODE * 30, triple_bits=12)
    (fault,) = plan(world, world.experts["law"], folder).faults
    assert "triples were counted in different numbers of buckets (code 2^12, law 2^10, null 2^10)" in fault
    assert "--set triple_bits" in fault


def test_triples_that_somebody_lacks_are_not_used(world: World, tmp_path: Path) -> None:
    """Experts of an older moehub have none: the plan says so, and says nothing where nobody has any."""
    older = tiny_expert(tmp_path / "code", world.base, name="code", text=CODE * 30, triple_bits=0)
    found = plan(world, world.experts["law"], older)
    assert found.faults == ()
    assert "triples are not used: code was published without" in found.notes
    alone = plan(world, older)
    assert not any("triples" in note for note in alone.notes)


def test_without_a_null_the_plan_says_what_that_costs(world: World) -> None:
    """No null expert is a note, not a fault."""
    found = plan(world, world.experts["law"], null=None)
    assert found.faults == ()
    assert "no null expert" in found.notes[0]
    assert "--null FILE" in found.notes[0]


def test_the_null_may_be_an_expert_or_a_moe(world: World, tmp_path: Path) -> None:
    """Statistics that exist already serve as the null's."""
    assert plan(world, world.experts["law"], null=str(world.experts["math"])).faults == ()
    with pytest.raises(MergeError, match=r"is a folder without router_stats\.safetensors"):
        plan(world, world.experts["law"], null=str(tmp_path))
    with pytest.raises(MergeError, match="does not exist, expected a file of generic text"):
        plan(world, world.experts["law"], null=str(tmp_path / "missing.txt"))


def test_a_reference_to_nothing_is_explained(world: World, tmp_path: Path) -> None:
    """A path that does not exist is no repo either."""
    with pytest.raises(MergeError, match="expected an expert's folder, or org/name on a hub"):
        plan(world, tmp_path / "nothing")


def test_scales_are_pefts(world: World, tmp_path: Path) -> None:
    """alpha/r, alpha/sqrt(r) where rank-stabilised, and alpha patterns by module."""
    assert set(read_adapter(open_expert(world.experts["code"])).scales.values()) == {3 / 7}
    assert set(read_adapter(open_expert(world.experts["math"])).scales.values()) == {8 / 2**0.5}
    patterned = changed(world, tmp_path / "pattern", alpha_pattern={"q_proj": 2})
    scales = read_adapter(open_expert(patterned)).scales
    assert scales["model.layers.0.self_attn.q_proj"] == pytest.approx(0.5)
    assert scales["model.layers.0.self_attn.v_proj"] == pytest.approx(2.0)
