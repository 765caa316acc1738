import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from moehub.errors import MergeError
from moehub.merge.exporting.dense import Dense
from moehub.merge.exporting.loading import load_exported, load_moe
from tests.merge.exporting.conftest import Small, make_small
from tests.world import CODE, LAW

TARGETS: dict[str, tuple[str, ...]] = {
    "llama": ("q_proj", "o_proj", "gate_proj", "down_proj"),
    "qwen3": ("k_proj", "v_proj", "up_proj"),
    "gemma2": ("q_proj", "up_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "gpt_neox": ("query_key_value", "dense_4h_to_h"),
}


def export(small: Small, target: Dense, folder: Path) -> Path:
    folder.mkdir()
    target.plan(small.parts).write(folder)
    return folder


def peft_merged(small: Small, expert: str) -> Any:
    """Return what PEFT's own merge makes of the expert."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers under an old name
        model = small.parts.base.load_model(dtype=torch.float32)
        return PeftModel.from_pretrained(model, str(small.moe / "experts" / expert)).merge_and_unload()


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
@pytest.mark.parametrize("architecture", TARGETS)
@torch.no_grad()
def test_it_equals_what_peft_merges(tmp_path: Path, architecture: str, dora: bool) -> None:
    """Tensor by tensor within 1e-6, whatever the architecture; also where weights lie transposed."""
    small = make_small(tmp_path, architecture=architecture, targets=(TARGETS[architecture],) * 2, dora=dora)
    exported = load_exported(export(small, Dense("code"), tmp_path / "out"))
    expected = peft_merged(small, "code").state_dict()
    assert exported.state_dict().keys() == expected.keys()
    for name, tensor in exported.state_dict().items():
        torch.testing.assert_close(tensor, expected[name], atol=1e-6, rtol=0, msg=name)
    untouched = load_file(small.base / "model.safetensors")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == untouched.keys()


@torch.no_grad()
def test_a_changed_output_layer_is_no_longer_tied(tmp_path: Path) -> None:
    """The embeddings stay the base's, as they do in the MoE, and the logits are the MoE's sent to the expert."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT warns of adapters on tied layers
        small = make_small(tmp_path, targets=(("lm_head", "q_proj"),) * 2, tie_word_embeddings=True)
    out = export(small, Dense("law"), tmp_path / "out")
    written, base = load_file(out / "model.safetensors"), load_file(small.base / "model.safetensors")
    assert torch.equal(written["model.embed_tokens.weight"], base["model.embed_tokens.weight"])
    assert not torch.equal(written["lm_head.weight"], base["model.embed_tokens.weight"])
    assert json.loads((out / "config.json").read_text(encoding="utf-8"))["tie_word_embeddings"] is False
    ids = small.parts.base.load_tokenizer()(LAW + CODE, return_tensors="pt")["input_ids"]
    moe = load_moe(small.parts, dtype=torch.float32)
    with moe.forced("law"):
        torch.testing.assert_close(load_exported(out)(ids).logits, moe(ids).logits, atol=1e-5, rtol=0)


def test_names_without_the_prefix_are_found(tmp_path: Path) -> None:
    """Old checkpoints of GPT-2 were saved from the model within."""
    small = make_small(tmp_path, architecture="gpt2", targets=(("c_attn",),) * 2)
    path = small.base / "model.safetensors"
    weights = load_file(path)
    inner = {name.removeprefix("transformer."): tensor for name, tensor in weights.items()}
    other = tmp_path / "other"
    other.mkdir()
    save_file(inner, other / "model.safetensors", metadata={"format": "pt"})
    from moehub.merge.exporting.dense import _items
    from moehub.merge.exporting.mapped import mapped

    with mapped(other) as base:
        items, untied = _items(small.parts, small.parts.adapters[0], base)
    assert not untied
    assert {item.name for item in items if item.change is not None} == {f"h.{at}.attn.c_attn.weight" for at in (0, 1)}


def test_the_type_can_be_chosen(small: Small, tmp_path: Path) -> None:
    """In bfloat16 it is what float32 gives, rounded once; the configuration says so."""
    whole = load_file(export(small, Dense("law"), tmp_path / "whole") / "model.safetensors")
    half = export(small, Dense("law", torch.bfloat16), tmp_path / "half")
    assert AutoModelForCausalLM.from_pretrained(half).dtype == torch.bfloat16
    for name, tensor in load_file(half / "model.safetensors").items():
        assert torch.equal(tensor, whole[name].bfloat16())


def test_an_unknown_expert_is_refused(small: Small) -> None:
    """With the names that there are."""
    with pytest.raises(MergeError, match=r"no expert 'music' .*, expected code, law"):
        Dense("music").plan(small.parts)
