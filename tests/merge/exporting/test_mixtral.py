import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM

from moehub import base as bases
from moehub.errors import DataError, MergeError, RouterError
from moehub.merge.exporting.loading import load_exported, load_moe
from moehub.merge.exporting.mixtral import Mixtral, columns
from moehub.merge.load import Parts
from tests.merge.exporting.conftest import FFN, Small, make_small
from tests.world import CODE, GENERIC, LAW

TEXT = LAW + CODE + GENERIC


def export(parts: Parts, target: Mixtral, folder: Path) -> Path:
    folder.mkdir()
    target.plan(parts).write(folder)
    return folder


@pytest.fixture(scope="module")
def exported(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MoE of the FFN's experts as Mixtral with two experts a token."""
    return export(small.parts, Mixtral(gate_texts=small.texts), tmp_path_factory.mktemp("mixtral") / "out")


def in_memory(small: Small, gates: dict[str, torch.Tensor], average: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    """Return Mixtral's weights made the plain way: everything in memory, in float32."""
    parts, weights = small.parts, load_file(small.base / "model.safetensors")
    made = dict(gates)
    for name, weight in weights.items():
        key = name.removesuffix(".weight")
        deltas = [
            adapter.scales[key] * adapter.pairs[key][1] @ adapter.pairs[key][0]
            if key in adapter.pairs
            else torch.zeros_like(weight)
            for adapter in parts.adapters
        ]
        if ".mlp." not in name:
            mean = sum(deltas) / len(deltas) if key.rpartition(".")[2] in average else 0
            made[name] = weight + mean
            continue
        layer, _, linear = key.removeprefix("model.layers.").partition(".mlp.")
        short = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}[linear]
        for number, delta in enumerate([*deltas, *([torch.zeros_like(weight)] if parts.config.null else [])]):
            made[f"model.layers.{layer}.block_sparse_moe.experts.{number}.{short}.weight"] = weight + delta
    return made


def gates_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "block_sparse_moe.gate" in name}


def test_the_files_are_laid_out_one_expert_at_a_time(exported: Path) -> None:
    """Names are those of the first Mixtral checkpoints, which vLLM and llama.cpp's converter read."""
    with safe_open(exported / "model.safetensors", framework="pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    block = {
        f"model.layers.{layer}.block_sparse_moe.{part}.weight"
        for layer in range(2)
        for part in ["gate", *(f"experts.{expert}.{w}" for expert in range(3) for w in ("w1", "w2", "w3"))]
    }
    attention = {f"model.layers.{n}.self_attn.{p}_proj.weight" for n in range(2) for p in "qkvo"}
    norms = {f"model.layers.{n}.{p}_layernorm.weight" for n in range(2) for p in ("input", "post_attention")}
    assert names == block | attention | norms | {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
    assert metadata == {"format": "pt"}


def test_streaming_equals_a_construction_in_memory(small: Small, exported: Path, tmp_path: Path) -> None:
    """Tensor by tensor the same as Mixtral made by `from_config` and `load_state_dict`, saved and read again."""
    streamed = load_file(exported / "model.safetensors")
    plain = in_memory(small, gates_of(streamed))
    assert streamed.keys() == plain.keys()
    for name, tensor in plain.items():
        torch.testing.assert_close(streamed[name], tensor, atol=1e-6, rtol=0, msg=name)
    config = MixtralConfig.from_pretrained(exported)
    model = MixtralForCausalLM(config)
    loaded = load_exported(exported)
    with torch.no_grad():
        model.load_state_dict(loaded.state_dict())
    model.save_pretrained(tmp_path / "plain")
    saved = load_file(tmp_path / "plain" / "model.safetensors")
    assert saved.keys() == streamed.keys()
    assert all(torch.equal(saved[name], tensor) for name, tensor in streamed.items())


def test_transformers_loads_it_as_mixtral(small: Small, exported: Path) -> None:
    """AutoModelForCausalLM gives a Mixtral that generates, with the base's tokenizer."""
    model, report = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
    assert type(model) is MixtralForCausalLM
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert (model.config.num_local_experts, model.config.num_experts_per_tok) == (3, 2)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.get_vocab() == bases.find(str(small.base)).load_tokenizer().get_vocab()
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    assert model.generate(ids, max_new_tokens=3, do_sample=False).shape[1] == ids.shape[1] + 3


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
@torch.no_grad()
def test_top_1_is_exact_where_the_gate_is(architecture: str, tmp_path: Path) -> None:
    """With gates that always choose one expert, the logits are the MoE's sent to it, within 1e-3 in float32."""
    small = make_small(tmp_path, architecture=architecture, sliding_window=16, head_dim=16)
    parts = small.parts
    model = load_exported(export(parts, Mixtral(top_k=1, gate_texts=small.texts), tmp_path / "out"))
    moe = load_moe(parts, dtype=torch.float32)
    ids = parts.base.load_tokenizer()(TEXT, return_tensors="pt")["input_ids"]
    for number, name in enumerate(columns(parts)):
        for layer in model.model.layers:
            layer.mlp.gate.forward = _always(number)
        with moe.forced(name):
            assert float((model(ids).logits - moe(ids).logits).abs().max()) <= 1e-3


def _always(number: int) -> object:
    def forward(hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = hidden.reshape(-1, hidden.shape[-1]).shape[0]
        one = torch.ones(tokens, 1)
        return one, one, torch.full((tokens, 1), number)

    return forward


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
@torch.no_grad()
def test_one_expert_without_null_needs_no_gate_and_is_exact(tmp_path: Path, dora: bool) -> None:
    """Mixtral with one expert equals the MoE sent to it, with the gate that was written, and no text is asked for."""
    small = make_small(tmp_path, null=False, dora=dora)
    from moehub.merge.merging import prepare_change

    with prepare_change(small.moe, remove=["code"]) as change:
        change.write()
    parts = small.parts
    model = load_exported(export(parts, Mixtral(), tmp_path / "out"))
    moe = load_moe(parts, dtype=torch.float32)
    ids = parts.base.load_tokenizer()(TEXT, return_tensors="pt")["input_ids"]
    with moe.forced("law"):
        torch.testing.assert_close(model(ids).logits, moe(ids).logits, atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_gates_tell_the_texts_apart(small: Small, exported: Path) -> None:
    """Three in four tokens of each text have their own expert's gate highest, in a base of random weights."""
    parts, model = small.parts, load_exported(exported)
    for number, (name, text) in enumerate({"code": CODE, "law": LAW, "null": GENERIC}.items()):
        ids = parts.base.load_tokenizer()(text * 4, return_tensors="pt")["input_ids"]
        logits = model(ids, output_router_logits=True).router_logits
        assert columns(parts)[number] == name
        assert float(torch.stack([(each.argmax(-1) == number).float().mean() for each in logits]).mean()) > 0.75


@pytest.mark.parametrize("attention", ["average", "drop"])
def test_attention_is_averaged_or_dropped_when_asked(attentive: Small, tmp_path: Path, attention: str) -> None:
    """What experts add to q and o is folded as a mean over all experts, or left out; the plan says which."""
    target = Mixtral(attention=attention, gate_texts=attentive.texts)  # type: ignore[arg-type]
    streamed = load_file(export(attentive.parts, target, tmp_path / "out") / "model.safetensors")
    plain = in_memory(attentive, gates_of(streamed), average=("q_proj", "o_proj") if attention == "average" else ())
    for name, tensor in plain.items():
        torch.testing.assert_close(streamed[name], tensor, atol=1e-6, rtol=0, msg=name)
    (sentence,) = [one for one in target.plan(attentive.parts).lost if "attention" in one]
    assert "(code)" in sentence
    assert {"average": "mean", "drop": "dropped"}[attention] in sentence


def test_attention_is_refused_by_default(attentive: Small) -> None:
    """Never silently."""
    with pytest.raises(MergeError, match=r"code change attention.*--attention average or --attention drop"):
        Mixtral(gate_texts=attentive.texts).plan(attentive.parts)


def test_rescaled_attention_has_no_mean(tmp_path: Path) -> None:
    """A DoRA's attention can be dropped, not averaged."""
    small = make_small(tmp_path, targets=((*FFN, "q_proj"), FFN), null=False, dora=True)
    with pytest.raises(MergeError, match="law rescale attention, as DoRA experts, and only low-rank updates are"):
        Mixtral(attention="average", gate_texts=small.texts).plan(small.parts)
    with pytest.raises(MergeError, match="experts share: add --attention drop, and look"):
        Mixtral(gate_texts=small.texts).plan(small.parts)
    Mixtral(attention="drop", gate_texts=small.texts).plan(small.parts)


def test_an_expert_without_an_ffn_is_named(tmp_path: Path) -> None:
    """It would be a copy of the base."""
    small = make_small(tmp_path, targets=(("q_proj",), FFN), null=False)
    lost = Mixtral(attention="drop", gate_texts=small.texts).plan(small.parts).lost
    assert any("all of law that is an expert's own" in sentence for sentence in lost)


def test_other_targets_are_refused(tmp_path: Path) -> None:
    """An expert on the output layer has no place in Mixtral."""
    small = make_small(tmp_path, targets=(FFN, (*FFN, "lm_head")), null=False)
    with pytest.raises(MergeError, match=r"code changes lm_head \(1 linears\): Mixtral has no place for it"):
        Mixtral(gate_texts=small.texts).plan(small.parts)


@pytest.mark.parametrize(
    ("architecture", "changes", "sentence"),
    [
        ("qwen2", {}, "its queries, keys and values have biases"),
        ("qwen3", {}, "it normalises queries and keys"),
        ("gemma2", {}, "it scales embeddings"),
        ("gpt2", {}, "it has learned positions"),
        ("starcoder2", {}, "its layers are not those of Llama"),
        ("llama", {"attention_bias": True}, "its attention has biases"),
        ("llama", {"mlp_bias": True}, "its FFN has biases"),
        ("llama", {"hidden_act": "gelu"}, "its FFN uses 'gelu'"),
    ],
)
def test_other_bases_are_refused(tmp_path: Path, architecture: str, changes: dict[str, Any], sentence: str) -> None:
    """With what does not fit, and what to do instead."""
    targets = ("c_fc",) if architecture in ("gpt2", "starcoder2") else ("down_proj",)
    small = make_small(tmp_path, architecture=architecture, targets=(targets, targets), null=False, **changes)
    with pytest.raises(MergeError, match="--format dense") as raised:
        Mixtral(gate_texts=small.texts).plan(small.parts)
    assert sentence in str(raised.value)


def test_without_text_there_are_no_gates(small: Small) -> None:
    """The sentence names every text that is missing, and the option."""
    texts = {"law": small.texts["law"]}
    with pytest.raises(RouterError, match="--gate-text code=FILE --gate-text null=FILE"):
        Mixtral(gate_texts=texts).plan(small.parts)
    with pytest.raises(RouterError, match="no such expert, expected code, law, null"):
        Mixtral(gate_texts={**small.texts, "music": small.texts["law"]}).plan(small.parts)
    with pytest.raises(DataError, match=r"nowhere\.txt does not exist"):
        Mixtral(gate_texts={**small.texts, "law": (small.folder / "nowhere.txt",)}).plan(small.parts)
    with pytest.raises(MergeError, match="--top-k 4 for 3 experts"):
        Mixtral(top_k=4, gate_texts=small.texts).plan(small.parts)


@torch.no_grad()
def test_positions_embeddings_and_windows_are_carried_over(tmp_path: Path) -> None:
    """A base with scaled rotary positions and tied embeddings gives the same logits; other readers find their words."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 5000.0,
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }
    small = make_small(tmp_path, null=False, rope_parameters=rope, tie_word_embeddings=True)
    out = export(small.parts, Mixtral(top_k=1, gate_texts=small.texts), tmp_path / "out")
    values = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert values["rope_theta"] == 5000.0
    assert values["rope_scaling"] == {key: value for key, value in rope.items() if key != "rope_theta"}
    assert values["torch_dtype"] == values["dtype"] == "float32"
    model, moe = load_exported(out), load_moe(small.parts, dtype=torch.float32)
    assert model.config.rope_parameters == rope
    assert "lm_head.weight" not in load_file(out / "model.safetensors")
    ids = small.parts.base.load_tokenizer()(TEXT * 2, return_tensors="pt")["input_ids"]
    for layer in model.model.layers:
        layer.mlp.gate.forward = _always(1)
    with moe.forced("law"):
        assert float((model(ids).logits - moe(ids).logits).abs().max()) <= 1e-3


def test_the_weights_are_cut_into_files_and_converted(small: Small, exported: Path, tmp_path: Path) -> None:
    """Small files with an index, in bfloat16, load to what one file in float32 holds, rounded once."""
    target = Mixtral(gate_texts=small.texts, dtype=torch.bfloat16, largest_shard=40_000)
    out = export(small.parts, target, tmp_path / "out")
    shards = sorted(out.glob("*.safetensors"))
    assert len(shards) > 2
    assert all(shard.stat().st_size < 50_000 for shard in shards)
    cut = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    whole = load_file(exported / "model.safetensors")
    assert cut.keys() == whole.keys()
    assert all(torch.equal(cut[name], tensor.bfloat16()) for name, tensor in whole.items())
    assert target.plan(small.parts).size == sum(tensor.nbytes for tensor in cut.values())
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.dtype == torch.bfloat16
