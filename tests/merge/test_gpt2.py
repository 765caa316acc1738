"""GPT-2 keeps its linears transposed, in modules of its own (Conv1D), with several targets of odd shapes."""

import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from moehub import base as bases
from moehub.experts.linears import linear_shapes
from moehub.merge.merging import Recipe, prepare
from moehub.merge.model import MoehubForCausalLM
from moehub.router.backends import NATIVE
from moehub.router.settings import RouterSettings
from tests.builders import tiny_base, tiny_expert
from tests.merge.stacked import stacked
from tests.world import CODE, LAW

TARGETS = ("c_attn", "c_proj", "c_fc")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers."""
    return tiny_base(tmp_path_factory.mktemp("gpt2") / "base", architecture="gpt2")


@pytest.fixture(scope="module")
def experts(base: Path) -> list[Path]:
    """Two experts on its transposed linears."""
    texts = {"law": LAW * 20, "code": CODE * 20}
    return [
        tiny_expert(
            base.parent / name, base, name=name, targets=TARGETS, rank=rank, text=text, seed=rank, fan_in_fan_out=True
        )
        for rank, (name, text) in enumerate(texts.items(), start=3)
    ]


def assemble(base: Path, experts: list[Path], folder: Path, method: str = "evidence") -> Path:
    with prepare(Recipe(str(base), tuple(map(str, experts)), router=RouterSettings(method))) as prepared:
        prepared.write(folder)
    return folder


def load(moe: Path, **options: object) -> tuple[MoehubForCausalLM, torch.Tensor]:
    ids = AutoTokenizer.from_pretrained(moe)(LAW + CODE, return_tensors="pt")["input_ids"]
    return AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32, **options), ids


def test_shapes_are_those_of_the_mathematics(base: Path) -> None:
    """A Conv1D's weight lies transposed; its shape is given as any linear's, (out, in), as the adapters have it."""
    shapes = linear_shapes(bases.find(str(base)).load_config().to_diff_dict())
    assert shapes["transformer.h.0.attn.c_attn"] == (96, 32)
    assert shapes["transformer.h.1.mlp.c_fc"] == (128, 32)
    assert shapes["transformer.h.1.mlp.c_proj"] == (32, 128)
    assert shapes["lm_head"] == (320, 32)
    assert "transformer.wte" not in shapes


@torch.no_grad()
def test_a_forced_expert_equals_peft(base: Path, experts: list[Path], tmp_path: Path) -> None:
    """The MoE sent to one expert gives PEFT's logits of that adapter within 1e-5, with every backend."""
    moe = assemble(base, experts, tmp_path / "moe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers under an old name
        peft = PeftModel.from_pretrained(bases.find(str(base)).load_model(dtype=torch.float32), str(experts[0])).eval()
    for backend in (NATIVE, "loop", "dense", "grouped", "gather"):
        model, ids = load(moe, backend=backend)
        with model.forced("law"):
            torch.testing.assert_close(model(ids).logits, peft(ids).logits, atol=1e-5, rtol=0)


@torch.no_grad()
def test_nobody_is_the_base_bit_for_bit(base: Path, experts: list[Path], tmp_path: Path) -> None:
    """Sent to nobody it is GPT-2."""
    model, ids = load(assemble(base, experts, tmp_path / "moe"))
    with model.forced("null"):
        assert torch.equal(model(ids).logits, bases.find(str(base)).load_model(dtype=torch.float32)(ids).logits)


@pytest.mark.parametrize("method", ["evidence", "arrow"])
@torch.no_grad()
def test_cached_decoding_equals_one_forward(base: Path, experts: list[Path], tmp_path: Path, method: str) -> None:
    """Windows of the text through the cache give the logits of the whole within 1e-4."""
    model, ids = load(assemble(base, experts, tmp_path / "moe", method))
    output, steps = None, []
    for part in ids.split(5, dim=1):
        output = model(part, past_key_values=None if output is None else output.past_key_values, use_cache=True)
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), model(ids, use_cache=False).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_trained_expert_is_written_as_peft_reads_it(base: Path, experts: list[Path], tmp_path: Path) -> None:
    """What was changed in the sparse layers is saved under PEFT's names and in PEFT's orientation."""
    model, ids = load(assemble(base, experts, tmp_path / "moe"), trainable=True)
    stacked(model, "transformer.h.0.attn.c_attn").B[model.names.index("law"), :3] += 0.25
    model.save_pretrained(tmp_path / "saved")
    weights = load_file(tmp_path / "saved" / "experts" / "law" / "adapter_model.safetensors")
    assert weights["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"].shape == (96, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        found = bases.find(str(base)).load_model(dtype=torch.float32)
        peft = PeftModel.from_pretrained(found, str(tmp_path / "saved" / "experts" / "law")).eval()
    with model.forced("law"):
        torch.testing.assert_close(model(ids).logits, peft(ids).logits, atol=1e-5, rtol=0)
