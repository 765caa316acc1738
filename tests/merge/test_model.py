import shutil
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

import moehub
from moehub import base as bases
from moehub import files
from moehub.errors import BaseModelError, ExpertError, MergeError, RouterError
from moehub.experts.folder import open_expert
from moehub.merge.merging import Recipe, prepare
from moehub.merge.model import MoehubForCausalLM
from moehub.router.backends import NATIVE, runnable
from moehub.router.settings import RouterSettings
from tests.builders import tiny_base, tiny_expert
from tests.merge.stacked import stacked
from tests.world import CODE, GENERIC, LAW, World

ARCHITECTURES = ["llama", "qwen2", "qwen3", "gemma", "gemma2", "gpt_neox", "phi", "phi3"]
METHODS = ["evidence", "arrow"]
PLAIN = (NATIVE, "loop", "dense", "grouped", "gather")
"""Backends that are not interpreted on a CPU: those take seconds for a model."""


def assemble(
    folder: Path, base: Path, experts: list[Path], *, null: Path | None = None, method: str = "evidence"
) -> Path:
    recipe = Recipe(
        base=str(base),
        experts=tuple(map(str, experts)),
        null=None if null is None else str(null),
        router=RouterSettings(method=method),
    )
    with prepare(recipe) as prepared:
        prepared.write(folder)
    return folder


def load(moe: Path, **options: object) -> MoehubForCausalLM:
    model = AutoModelForCausalLM.from_pretrained(moe, dtype=torch.float32, **options)
    assert isinstance(model, MoehubForCausalLM)
    return model


def encoded(moe: Path, text: str) -> torch.Tensor:
    return AutoTokenizer.from_pretrained(moe)(text, return_tensors="pt")["input_ids"]


@pytest.fixture(scope="module")
def moe(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MoE of three experts with a null expert."""
    folder = tmp_path_factory.mktemp("moe") / "moe"
    return assemble(folder, world.base, list(world.experts.values()), null=world.null)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A base of one architecture, an expert on all of its linears, and the MoE of this one expert."""
    folder = tmp_path_factory.mktemp(request.param)
    base = tiny_base(folder / "base", architecture=request.param)
    expert = tiny_expert(folder / "law", base, targets="all-linear", rank=3, text=LAW * 20)
    other = tiny_expert(folder / "code", base, name="code", targets="all-linear", rank=5, text=CODE * 20, seed=4)
    assemble(folder / "two", base, [expert, other])
    return base, expert, assemble(folder / "moe", base, [expert])


def peft_logits(base: Path, expert: Path, ids: torch.Tensor) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers under an old name
        model = PeftModel.from_pretrained(bases.find(str(base)).load_model(dtype=torch.float32), str(expert))
    with torch.no_grad():
        return model.eval()(ids).logits


@torch.no_grad()
def test_one_forced_expert_equals_peft(family: tuple[Path, Path, Path]) -> None:
    """A MoE of one expert whose gate is forced to it gives PEFT's own logits of that adapter, within 1e-5."""
    base, expert, moe = family
    ids = encoded(moe, LAW + CODE)
    model = load(moe)
    with model.forced("law"):
        mine = model(ids).logits
    torch.testing.assert_close(mine, peft_logits(base, expert, ids), atol=1e-5, rtol=0)


@torch.no_grad()
def test_forced_to_null_equals_the_base_bit_for_bit(family: tuple[Path, Path, Path]) -> None:
    """Sent to nobody, the MoE is its base to the bit."""
    base, _, moe = family
    ids = encoded(moe, LAW + CODE)
    plain = bases.find(str(base)).load_model(dtype=torch.float32)
    for backend in PLAIN:
        model = load(moe, backend=backend)
        with model.forced("null"):
            assert torch.equal(model(ids).logits, plain(ids).logits)


@torch.no_grad()
def test_cached_decoding_equals_one_forward(family: tuple[Path, Path, Path]) -> None:
    """Prefill, then one token at a time through the cache, gives the logits of one full forward within 1e-4."""
    moe = family[2].with_name("two")
    ids = encoded(moe, (LAW + CODE) * 2)
    model = load(moe)
    whole = model(ids, use_cache=False).logits
    output = model(ids[:, :7], use_cache=True)
    steps = [output.logits]
    for position in range(7, ids.shape[1]):
        output = model(ids[:, position : position + 1], past_key_values=output.past_key_values, use_cache=True)
        steps.append(output.logits)
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", METHODS)
@torch.no_grad()
def test_backends_give_the_same_model(world: World, tmp_path: Path, method: str) -> None:
    """Whole models with different backends agree."""
    moe = assemble(tmp_path / "moe", world.base, list(world.experts.values()), method=method)
    ids = encoded(moe, LAW + CODE)
    backends = (NATIVE, *runnable(torch.device("cpu"))) if method == "evidence" else PLAIN
    logits = {name: load(moe, backend=name)(ids).logits for name in backends}
    for mine in logits.values():
        torch.testing.assert_close(mine, logits["loop"], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_a_bound_on_memory_changes_no_answer(moe: Path) -> None:
    """With room for hardly anything experts come and go, and every logit is the same to the bit."""
    ids = encoded(moe, LAW + CODE + LAW)
    free, bound = load(moe), load(moe, resident=1)
    assert torch.equal(bound(ids).logits, free(ids).logits)
    for expert in ("law", "code", "law"):
        with free.forced(expert), bound.forced(expert):
            assert torch.equal(bound(ids).logits, free(ids).logits)
    assert free.shelf is not None
    assert bound.shelf is not None
    assert bound.shelf.usage.resident < free.shelf.usage.resident
    assert bound.shelf.usage.brought > free.shelf.usage.brought


def test_tokens_go_to_whose_words_they_are(moe: Path) -> None:
    """Each domain's text goes to its expert, and generic text to nobody."""
    model = load(moe)
    for text, column in ((LAW, model.names.index("law")), (CODE, model.names.index("code")), (GENERIC, -1)):
        trace = model.trace(encoded(moe, text * 2))[0]
        torch.testing.assert_close(trace.sum(-1), torch.ones(len(trace)).to(trace))
        assert float(trace[4:, column].mean()) > 0.8


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 4, "num_return_sequences": 2},
        {"do_sample": True, "temperature": 0.9},
        {"cache_implementation": "static"},
        {"prompt_lookup_num_tokens": 3},
    ],
    ids=lambda options: next(iter(options)),
)
def test_generation_with_the_cache_equals_generation_without(moe: Path, options: dict[str, object]) -> None:
    """However generate works (beams, samples, static caches, assistants), the gate's state follows the cache."""
    model, ids = load(moe), encoded(moe, LAW + CODE)

    def written(**more: object) -> list[list[int]]:
        torch.manual_seed(0)
        mask = torch.ones_like(ids)
        return model.generate(ids, attention_mask=mask, max_new_tokens=16, min_new_tokens=16, **more).tolist()

    plain = {} if "prompt_lookup_num_tokens" in options or "cache_implementation" in options else options
    assert written(**options) == written(**plain, use_cache=False)


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"use_cache": False}], ids=str)
def test_a_batch_with_left_padding_writes_what_each_text_alone_writes(moe: Path, options: dict[str, object]) -> None:
    """Padding before a short prompt changes neither its routing nor its text, whatever the cache."""
    tokenizer = AutoTokenizer.from_pretrained(moe, padding_side="left")
    model, prompts = load(moe), [LAW + CODE, "def add", "12 + 30 = 42. the rent"]
    batch = tokenizer(prompts, return_tensors="pt", padding=True)
    together = model.generate(**batch, max_new_tokens=10, min_new_tokens=10, **options)[
        :, batch["input_ids"].shape[1] :
    ]
    for row, prompt in zip(together, prompts, strict=True):
        alone = tokenizer(prompt, return_tensors="pt")
        ids = model.generate(**alone, max_new_tokens=10, min_new_tokens=10)[0, alone["input_ids"].shape[1] :]
        assert row.tolist() == ids.tolist()


def test_a_streamer_gets_every_token(moe: Path) -> None:
    """Streaming sees the prompt and then each token as it is written."""
    from transformers.generation.streamers import BaseStreamer

    class Collector(BaseStreamer):
        def __init__(self) -> None:
            self.ids: list[int] = []

        def put(self, value: torch.Tensor) -> None:
            self.ids += value.flatten().tolist()

        def end(self) -> None:
            self.ids.append(-1)

    model, ids, streamer = load(moe), encoded(moe, LAW), Collector()
    output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=5, streamer=streamer)
    assert streamer.ids == [*output[0].tolist(), -1]


@torch.no_grad()
def test_a_cropped_and_repeated_cache_carries_the_right_state(moe: Path) -> None:
    """Cropping a cache takes the gate back; repeating and selecting rows takes its state along."""
    model, ids = load(moe), encoded(moe, LAW + CODE + LAW)
    cache = DynamicCache(config=model.config.get_text_config())
    model(ids[:, :20], past_key_values=cache)
    cache.crop(-8)
    cache.batch_repeat_interleave(3)
    cache.batch_select_indices(torch.tensor([2, 0]))
    after = model(ids[:, 12:].repeat(2, 1), past_key_values=cache).logits
    whole = model(ids, use_cache=False).logits[:, 12:]
    torch.testing.assert_close(after, whole.repeat(2, 1, 1), atol=1e-4, rtol=0)


def test_gradients_flow_to_experts_and_tables(moe: Path) -> None:
    """A loss moves the adapters of the experts in use, and the gate's tables where they may learn; the base stays."""
    model, ids = load(moe, trainable=True), encoded(moe, LAW + CODE)
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith((".A", ".B")) or name.startswith("gate."))
    model(ids, labels=ids).loss.backward()
    layer = stacked(model, "model.layers.0.self_attn.q_proj")
    assert layer.A.grad is not None
    assert layer.B.grad is not None
    assert all(float(layer.A.grad[model.names.index(name)].abs().max()) > 0 for name in ("law", "code"))
    tables = [parameter.grad for name, parameter in model.named_parameters() if name.startswith("gate.")]
    assert all(grad is not None and float(grad.abs().max()) > 0 for grad in tables)
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if "embed" in name)


def test_a_gate_learns_the_same_through_mapped_experts(moe: Path) -> None:
    """Experts that are only read still let gradients through, to the gate and to the base: those of stacked ones."""
    found = []
    for options in ({}, {"trainable": True, "backend": "loop"}):
        model, ids = load(moe, **options), encoded(moe, LAW + CODE)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith("gate.") or "embed_tokens" in name)
        model(ids, labels=ids).loss.backward()
        found.append({name: one.grad for name, one in model.named_parameters() if one.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert any(name.startswith("gate.") for name in found[0])
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-6, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_saved_moe_is_the_same_folder(moe: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    """Saving what was loaded writes the same bytes, in whatever precision it was loaded."""
    AutoModelForCausalLM.from_pretrained(moe, dtype=dtype).save_pretrained(tmp_path / "saved")
    assert files.tree_digest(tmp_path / "saved") == files.tree_digest(moe)


@torch.no_grad()
def test_a_trained_expert_is_saved_with_a_new_card(moe: Path, tmp_path: Path) -> None:
    """Changed weights come back after saving and loading; the card's version grows, the others stay."""
    model, ids = load(moe, trainable=True), encoded(moe, LAW)
    law = model.names.index("law")
    stacked(model, "model.layers.0.self_attn.q_proj").B[law, :4] += 0.25
    expected = model(ids).logits
    model.save_pretrained(tmp_path / "saved")
    again = load(tmp_path / "saved", trainable=True)
    torch.testing.assert_close(again(ids).logits, expected, atol=0, rtol=0)
    assert open_expert(tmp_path / "saved" / "experts" / "law").card.version == 2
    assert open_expert(tmp_path / "saved" / "experts" / "code").card.version == 1


def test_a_changed_gate_is_not_dropped_silently(moe: Path, tmp_path: Path) -> None:
    """Tables follow from counts: saving others is refused."""
    model = load(moe)
    next(model.gate.parameters()).data += 1
    with pytest.raises(MergeError, match="and they follow from counts"):
        model.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_embeddings_cannot_route(moe: Path) -> None:
    """The gate reads tokens; inputs without ids are refused."""
    with pytest.raises(RouterError, match="give input_ids, not inputs_embeds"):
        load(moe)(inputs_embeds=torch.zeros(1, 3, 32))


def test_an_unknown_expert_cannot_be_forced(moe: Path) -> None:
    """Forcing names who is there."""
    with pytest.raises(RouterError, match="no expert 'physics' in this MoE, expected code, law, math, null"):
        load(moe).forced("physics").__enter__()


def test_another_base_is_refused(moe: Path, tmp_path: Path) -> None:
    """A base with other weights is recognised by its digest."""
    other = tiny_base(tmp_path / "other", seed=7)
    with pytest.raises(BaseModelError, match="not the one these experts were trained on"):
        load(moe, base_location=str(other))


def test_a_moved_base_is_named(moe: Path, world: World, tmp_path: Path) -> None:
    """Where the base went, `base_location=` says it; without it the sentence does."""
    copied = tmp_path / "moe"
    shutil.copytree(moe, copied)
    config = (copied / "config.json").read_text(encoding="utf-8")
    (copied / "config.json").write_text(config.replace(str(world.base), "/nowhere/base"), encoding="utf-8")
    with pytest.raises(BaseModelError, match="name it with --base"):
        load(copied)
    assert load(copied, base_location=str(world.base)).names == ["code", "law", "math"]


def test_an_embedded_base_needs_nothing_else(world: World, tmp_path: Path) -> None:
    """A MoE with its base inside loads after everything else is gone."""
    base = tmp_path / "base"
    shutil.copytree(world.base, base)
    with prepare(Recipe(base=str(base), experts=world.references("law"), embed_base=True)) as prepared:
        prepared.write(tmp_path / "moe")
    shutil.rmtree(base)
    assert load(tmp_path / "moe").names == ["law"]


@pytest.mark.parametrize(
    ("path", "error", "sentence"),
    [
        ("experts/law/adapter_model.safetensors", ExpertError, "adapter_model.safetensors was changed"),
        ("experts/law/expert.json", ExpertError, "is damaged"),
        ("router.safetensors", MergeError, "make the MoE again with `moehub merge"),
    ],
)
def test_a_truncated_file_is_named(moe: Path, tmp_path: Path, path: str, error: type[Exception], sentence: str) -> None:
    """Half a file never loads; the sentence names it and the cure."""
    copied = tmp_path / "moe"
    shutil.copytree(moe, copied)
    content = (copied / path).read_bytes()
    (copied / path).write_bytes(content[: len(content) // 2])
    with pytest.raises(error, match=sentence):
        load(copied)


def test_importing_moehub_is_enough() -> None:
    """The auto classes know MoEs as soon as the package was imported."""
    from transformers import CONFIG_MAPPING

    assert moehub.__version__
    assert "moehub" in CONFIG_MAPPING
