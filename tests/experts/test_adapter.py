import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from moehub.card import ADAPTER_WEIGHTS, read_card
from moehub.errors import ExpertError
from moehub.experts.adapter import _REFUSED, config_faults, read_adapter, read_config
from moehub.experts.folder import Expert, open_expert, seal
from tests.builders import tiny_base, tiny_expert
from tests.world import World

HARMLESS = {
    *("task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision"),
    *("inference_mode", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("lora_dropout", "runtime_config", "ensure_weight_tying", "megatron_config", "megatron_core"),
    # Adapters hold B·A as any linear's, and the base's own module computes its part, transposed or not.
    "fan_in_fan_out",
    # How the start of the training was found; what changes the base's weights is seen in init_lora_weights.
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),
    # Only the backward pass, or only the forward of a training.
    *("velora_config", "monteclora_config"),
    # Only with use_qalora, which is refused.
    "qalora_group_size",
}
READ = {"r", "rank_pattern", "lora_alpha", "alpha_pattern", "use_rslora", "use_dora", "bias", "init_lora_weights"}


def changed(world: World, folder: Path, **config: object) -> Path:
    """Return a copy of an expert whose adapter configuration says something else."""
    shutil.copytree(world.experts["law"], folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **config}), encoding="utf-8")
    return folder


def test_every_option_of_peft_was_thought_about() -> None:
    """An option that a new PEFT brings is read, refused or known to be harmless: never ignored unawares."""
    options = {field.name for field in dataclasses.fields(LoraConfig)}
    assert options - READ - HARMLESS == set(_REFUSED)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"kasa_config": {"beta": 1e-4}}, "its kasa_config"),
        ({"use_bdlora": {"nblocks": 2}}, "its use_bdlora"),
        ({"arrow_config": {"top_k": 2}}, "its arrow_config"),
        ({"peft_type": "IA3"}, "it is a IA3 adapter, expected LORA"),
        ({"peft_type": ""}, "nameless adapter, expected LORA"),
    ],
)
def test_variants_of_lora_are_refused_by_name(
    world: World, tmp_path: Path, config: dict[str, object], sentence: str
) -> None:
    """What computes something else than W + s·B·A is named."""
    (fault,) = config_faults(read_config(changed(world, tmp_path / "law", **config)))
    assert sentence in fault


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_configuration_that_cannot_be_read_is_explained(world: World, tmp_path: Path, content: bytes) -> None:
    """Damaged JSON is a sentence with a cure."""
    folder = changed(world, tmp_path / "law")
    (folder / "adapter_config.json").write_bytes(content)
    with pytest.raises(ExpertError, match="pull the expert again"):
        read_config(folder)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [("lacking", "lacks lora_A or lora_B of"), ("bent", "do not fit together"), ("flat", "lacks lora_A or lora_B of")],
)
def test_half_a_pair_is_no_adapter(world: World, tmp_path: Path, damage: str, sentence: str) -> None:
    """A missing or misshapen partner is named with its linear."""
    folder = changed(world, tmp_path / "law")
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("q_proj.lora_B.weight"))
    tensor = tensors.pop(name)
    if damage != "lacking":
        tensors[name] = tensor[:, :-1].contiguous() if damage == "bent" else tensor.flatten()
    save_file(tensors, path)
    seal(folder, read_card(folder))
    with pytest.raises(ExpertError, match=sentence):
        read_adapter(open_expert(folder))


def test_magnitudes_belong_to_dora_alone(tmp_path: Path) -> None:
    """Each linear of a DoRA has as many as outputs, and a LoRA has none; they are checked as the matrices are."""
    expert = tiny_expert(tmp_path / "law", tiny_base(tmp_path / "base"), use_dora=True)
    opened, path = open_expert(expert), expert / ADAPTER_WEIGHTS
    adapter, tensors = read_adapter(opened), load_file(path)
    assert adapter.magnitudes.keys() == adapter.pairs.keys()
    name = "base_model.model.model.layers.0.mlp.down_proj.lora_magnitude_vector"
    assert torch.equal(adapter.magnitudes["model.layers.0.mlp.down_proj"], tensors[name])
    lacking = {other: tensor for other, tensor in tensors.items() if other != name}
    for damaged, sentence in (
        (lacking, r"lora_magnitude_vector of .*down_proj' in 'law' has the shape None, expected \(32,\) where .* True"),
        (tensors | {name: torch.ones(31)}, r"has the shape \(31,\), expected \(32,\)"),
        (tensors | {name: torch.full((32,), torch.inf)}, r"not finite in model.layers.0.mlp.down_proj \(1 linears"),
    ):
        save_file(damaged, path)
        with pytest.raises(ExpertError, match=sentence):
            read_adapter(opened)
    save_file(tensors, path)
    config = read_config(expert) | {"use_dora": False}
    (expert / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ExpertError, match=r"has the shape \(32,\), expected None where use_dora is False"):
        read_adapter(opened)


def test_scales_follow_each_linears_own_rank_and_alpha(world: World, tmp_path: Path) -> None:
    """With `rank_pattern` the rank is that of the tensors; the first alpha pattern that fits wins."""
    folder = changed(world, tmp_path / "law", alpha_pattern={"q_proj": 20, "layers.0.self_attn.q_proj": 1})
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    key = "base_model.model.model.layers.1.self_attn.q_proj"
    tensors[f"{key}.lora_A.weight"] = torch.randn(10, 32)
    tensors[f"{key}.lora_B.weight"] = torch.randn(32, 10)
    save_file(tensors, path)
    seal(folder, read_card(folder))
    scales = read_adapter(open_expert(folder)).scales
    assert scales["model.layers.1.self_attn.q_proj"] == 20 / 10
    assert scales["model.layers.0.self_attn.q_proj"] == 20 / 4
    assert scales["model.layers.0.self_attn.v_proj"] == 8 / 4


@pytest.fixture
def expert(world: World, tmp_path: Path) -> Path:
    """An expert that may be damaged."""
    return Path(shutil.copytree(world.experts["law"], tmp_path / "law"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(expert: Path, value: float) -> None:
    """One such value would spoil every answer; the sentence names the linear."""
    weights = load_file(expert / ADAPTER_WEIGHTS)
    name = min(weights)
    weights[name][0, 0] = value
    save_file(weights, expert / ADAPTER_WEIGHTS)
    linear = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
    with pytest.raises(ExpertError, match=rf"not finite in {linear} \(1 linears in all\)"):
        read_adapter(Expert(expert, read_card(expert)))


@pytest.mark.parametrize("content", [b"", b"x" * 50])
def test_unreadable_weights_are_one_sentence(expert: Path, content: bytes) -> None:
    """Truncated or of another format."""
    (expert / ADAPTER_WEIGHTS).write_bytes(content)
    with pytest.raises(ExpertError, match=r"cannot be read .*: pull the expert again"):
        read_adapter(Expert(expert, read_card(expert)))


def test_weights_of_every_dtype_are_checked(expert: Path) -> None:
    """An adapter in half precision is as good."""
    weights = {name: one.to(torch.bfloat16) for name, one in load_file(expert / ADAPTER_WEIGHTS).items()}
    save_file(weights, expert / ADAPTER_WEIGHTS)
    opened = Expert(expert, read_card(expert))
    assert {one.dtype for pair in read_adapter(opened).pairs.values() for one in pair} == {torch.bfloat16}
