import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from moehub import base as bases
from moehub.errors import BaseModelError
from tests.builders import tiny_base

HIDDEN = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture
def copy(base_folder: Path, tmp_path: Path) -> Path:
    """A base that may be damaged."""
    return Path(shutil.copytree(base_folder, tmp_path / "copy"))


def _configure(**changes: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def _write(name: str, content: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(content)


def _retensor(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return rewrite


def _truncate(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def test_local_base_is_found_and_named_after_its_folder(base_folder: Path) -> None:
    """Its reference is never a path of this machine; its location is one."""
    base = bases.find(str(base_folder))
    assert (base.reference, base.revision, base.location) == ("tiny-llama", None, str(base_folder))
    assert base.load_model().num_parameters() > 0


def test_base_is_found_from_where_one_stands(base_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.` is the folder's own name."""
    monkeypatch.chdir(base_folder)
    assert bases.find(".").reference == "tiny-llama"


def test_base_of_a_hub_is_named_after_its_repo(base_folder: Path) -> None:
    """What `from_pretrained` needs to find it again is the repo id."""
    assert bases.Base(base_folder, "org/base", "abc").location == "org/base"


def test_folder_without_configuration_is_no_base(tmp_path: Path) -> None:
    """The sentence says what was expected."""
    with pytest.raises(BaseModelError, match=r"is no base: it has no config\.json"):
        bases.find(str(tmp_path))


@pytest.mark.parametrize("reference", ["org/base", "org/base@main", "base", "a b", "../up", "http://here"])
def test_base_that_nobody_has_is_one_sentence(reference: str) -> None:
    """Whether the name is impossible or no hub answers."""
    with pytest.raises(BaseModelError, match=r"there is no folder .* and no hub serves a model of that name"):
        bases.find(reference, endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (_write("config.json", "{"), "cannot read the configuration"),
        (_write("config.json", "[]"), "cannot read the configuration"),
        (_configure(hidden_size="wide"), "'hidden_size' expected int"),
        (_configure(num_attention_heads=0), "cannot read the configuration"),
        (_configure(model_type="nonsense"), "cannot read the configuration"),
        (_configure(model_type="odd", auto_map={"AutoConfig": "x.Y"}), "cannot read the configuration"),
        (_configure(model_type="t5", architectures=["T5ForConditionalGeneration"]), "is a 't5' model, expected"),
        (_configure(model_type="bert", architectures=["BertForMaskedLM"]), "is a 'bert' model, expected"),
        (_configure(architectures=["LlamaForSequenceClassification"]), "is a 'llama' model, expected"),
    ],
)
def test_configuration_of_something_else_is_refused(copy: Path, damage: Callable[[Path], Any], sentence: str) -> None:
    """Damaged files, unknown architectures, remote code, and models that do not continue text."""
    damage(copy)
    with pytest.raises(BaseModelError) as caught:
        bases.find(str(copy)).load_config()
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    "architectures", [["LlamaForCausalLM"], None, ["GPT2LMHeadModel", "LlamaForCausalLM"], ["MyLlamaForCausalLM"]]
)
def test_causal_models_are_accepted_whatever_their_class_is_called(copy: Path, architectures: object) -> None:
    """A configuration may name no class, or a descendant's."""
    _configure(architectures=architectures)(copy)
    assert bases.find(str(copy)).load_config().model_type == "llama"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "cannot load the weights"),
        (_write("model.safetensors", "x" * 100), "cannot load the weights"),
        (_truncate, "cannot load the weights"),
        (_configure(intermediate_size=64), "cannot load the weights"),
        (_retensor(lambda tensors: tensors.pop(HIDDEN)), f"lack {HIDDEN} (1 tensors in all)"),
    ],
)
def test_damaged_weights_are_refused(copy: Path, damage: Callable[[Path], Any], sentence: str) -> None:
    """Missing, truncated or misshapen weights; transformers alone would fill a missing tensor with noise."""
    damage(copy)
    with bases.quiet_transformers(), pytest.raises(BaseModelError) as caught:
        bases.find(str(copy)).load_model()
    assert sentence in str(caught.value)


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma2", "gpt_neox", "phi"])
@pytest.mark.parametrize("tied", [False, True])
def test_whole_bases_of_all_kinds_are_loaded(tmp_path: Path, architecture: str, tied: bool) -> None:
    """Also those whose head is the embedding and is not stored."""
    folder = tiny_base(tmp_path / "base", architecture=architecture, tie_word_embeddings=tied)
    model = bases.find(str(folder)).load_model(dtype=torch.float32)
    assert torch.isfinite(model(torch.arange(2, 9)[None]).logits).all()


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: [file.unlink() for file in folder.glob("tokenizer*")],
        _write("tokenizer.json", "{"),
        _write("tokenizer.json", "{}"),
        _write("tokenizer_config.json", "{"),
    ],
)
def test_damaged_tokenizer_is_refused(copy: Path, damage: Callable[[Path], Any]) -> None:
    """Missing or broken files are one sentence."""
    damage(copy)
    with bases.quiet_transformers(), pytest.raises(BaseModelError, match="cannot load the tokenizer of the base in"):
        bases.find(str(copy)).load_tokenizer()


def test_digest_does_not_depend_on_how_weights_are_cut_into_files(copy: Path) -> None:
    """One file or two: the same tensors, the same digest."""
    before = bases.weights_digest(copy)
    tensors = load_file(copy / "model.safetensors")
    names = sorted(tensors)
    (copy / "model.safetensors").unlink()
    save_file({name: tensors[name] for name in names[5:]}, copy / "a.safetensors")
    save_file({name: tensors[name] for name in names[:5]}, copy / "b.safetensors", metadata={"some": "thing"})
    assert bases.weights_digest(copy) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors[HIDDEN].view(-1)[7:8].add_(1),
        lambda tensors: tensors.update({HIDDEN: tensors[HIDDEN].half()}),
        lambda tensors: tensors.update({HIDDEN: tensors[HIDDEN].T.contiguous()}),
        lambda tensors: tensors.update({"other": tensors.pop(HIDDEN)}),
    ],
)
def test_digest_changes_with_every_tensor(copy: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """A value, a dtype, a shape or a name."""
    before = bases.weights_digest(copy)
    _retensor(change)(copy)
    assert bases.weights_digest(copy) != before


def test_digest_is_kept_until_the_file_changes(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights that were not touched are not read again."""
    before = bases.weights_digest(copy)
    with monkeypatch.context() as patch:
        patch.setattr(bases, "_digest_tensors", lambda _: "read again")
        assert bases.weights_digest(copy) == before
        (copy / "model.safetensors").touch()
        assert bases.weights_digest(copy) == "read again"


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "holds no .safetensors weights"),
        (_truncate, "is truncated"),
        (_write("model.safetensors", "x"), "is no safetensors file"),
        (_write("model.safetensors", "\2" + "\0" * 7 + "[]"), "is no safetensors file"),
    ],
)
def test_digest_of_damaged_weights_is_refused(copy: Path, damage: Callable[[Path], Any], sentence: str) -> None:
    """The sentence says what to download again."""
    damage(copy)
    with pytest.raises(BaseModelError) as caught:
        bases.weights_digest(copy)
    assert sentence in str(caught.value)


def test_tokenizer_digest_is_of_what_makes_ids(base_folder: Path) -> None:
    """Padding, truncation and a chat template change nothing; a new token does."""
    tokenizer: Any = bases.find(str(base_folder)).load_tokenizer()
    before = bases.tokenizer_digest(tokenizer)
    tokenizer(["a", "b c"], padding=True, truncation=True, max_length=4)
    tokenizer.chat_template = "{{ messages }}"
    assert bases.tokenizer_digest(tokenizer) == before
    tokenizer.add_tokens(["<new>"])
    assert bases.tokenizer_digest(tokenizer) != before


def test_pin_names_the_base_and_both_digests(base_folder: Path) -> None:
    """What an expert's card says about its base."""
    base = bases.find(str(base_folder))
    pin = base.pin()
    assert (pin.reference, pin.revision) == ("tiny-llama", None)
    assert pin.digest == bases.weights_digest(base_folder)
    assert pin.tokenizer == bases.tokenizer_digest(base.load_tokenizer())


@pytest.mark.parametrize(("setting", "expected"), [(256, 256), (None, 2048)])
def test_context_length_is_the_bases(setting: int | None, expected: int) -> None:
    """Where the configuration says nothing, a customary length is assumed."""
    text = SimpleNamespace(max_position_embeddings=setting)
    config: Any = SimpleNamespace(get_text_config=lambda: text)
    assert bases.context_length(config) == expected


def test_context_length_goes_by_whatever_name_the_architecture_gives_it(base_folder: Path) -> None:
    """Llama and GPT-2 call it differently."""
    from transformers import GPT2Config

    assert bases.context_length(bases.find(str(base_folder)).load_config()) == 256
    assert bases.context_length(GPT2Config(n_positions=64)) == 64


@pytest.mark.parametrize("shown", [True, False])
def test_quiet_leaves_verbosity_and_bars_as_they_were(shown: bool) -> None:
    """Silence ends with the block, even after an error."""
    from transformers.utils import logging as chatter

    level, before = chatter.get_verbosity(), chatter.is_progress_bar_enabled()
    chatter.enable_progress_bar() if shown else chatter.disable_progress_bar()
    with pytest.raises(ValueError, match="broken"), bases.quiet_transformers():
        raise ValueError("broken")
    assert (chatter.get_verbosity(), chatter.is_progress_bar_enabled()) == (level, shown)
    chatter.enable_progress_bar() if before else chatter.disable_progress_bar()


def test_importing_the_module_loads_no_heavy_library() -> None:
    """`moehub --help` must not wait for torch."""
    code = "import sys, moehub.base; print([name for name in ('torch', 'transformers') if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
