import warnings
from pathlib import Path

import pytest
import torch

from moehub import base as bases
from moehub.errors import ConfigError
from moehub.experts import adaptation
from moehub.experts.settings import TrainConfig
from tests.builders import tiny_base

LLAMA = ("down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj")


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("llama", LLAMA),
        ("gemma2", LLAMA),
        ("gpt_neox", ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value")),
        ("phi", ("dense", "fc1", "fc2", "k_proj", "q_proj", "v_proj")),
    ],
)
def test_all_linear_is_every_linear_but_the_head(tmp_path: Path, architecture: str, expected: tuple[str, ...]) -> None:
    """Targets are the short names, the same in every layer, and PEFT's own `all-linear` takes the same modules."""
    from peft import LoraConfig, get_peft_model

    base = bases.find(str(tiny_base(tmp_path / "base", architecture=architecture)))
    with adaptation.quiet():
        model = adaptation.adapt(adaptation.load(base, TrainConfig()), TrainConfig())
        theirs = get_peft_model(
            adaptation.load(base, TrainConfig()), LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
        )
    ours_names, their_names = (
        {name for name, _ in one.named_parameters() if "lora_" in name} for one in (model, theirs)
    )
    assert adaptation.targets(model) == expected
    assert ours_names == their_names


def test_conv1d_counts_as_a_linear() -> None:
    """GPT-2 keeps its projections in a class of its own."""
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=16, n_embd=8, n_layer=1, n_head=2))
    with adaptation.quiet():
        adapted = adaptation.adapt(model, TrainConfig(rank=2))
    assert adaptation.targets(adapted) == ("c_attn", "c_fc", "c_proj")


def test_new_adapter_changes_nothing_and_is_all_that_is_trained(base_folder: Path) -> None:
    """Only LoRA weights take gradients, in float32, and the first output is the base's."""
    base = bases.find(str(base_folder))
    ids = torch.arange(2, 30)[None]
    expected = base.load_model(dtype=torch.float32)(ids).logits
    with adaptation.quiet():
        model = adaptation.adapt(adaptation.load(base, TrainConfig(dtype="bfloat16")), TrainConfig(targets="q_proj"))
        exact = adaptation.adapt(adaptation.load(base, TrainConfig()), TrainConfig(targets="q_proj"))
    trained = {name: one.dtype for name, one in model.named_parameters() if one.requires_grad}
    assert set(trained.values()) == {torch.float32}
    assert all(".q_proj.lora_" in name for name in trained)
    assert torch.equal(exact(ids).logits, expected)


def test_seed_decides_the_first_adapter(base_folder: Path) -> None:
    """The same seed gives the same start, another seed another."""
    base = bases.find(str(base_folder))
    starts = []
    with adaptation.quiet():
        for seed in (1, 1, 2):
            config = TrainConfig(seed=seed, targets="q_proj")
            model = adaptation.adapt(adaptation.load(base, config), config)
            starts.append(torch.cat([one.flatten() for name, one in model.named_parameters() if "lora_A" in name]))
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


@pytest.mark.parametrize("targets", ["q_proj,gate", "all-linear,q_proj", "lm_head"])
def test_unknown_targets_are_refused_with_those_there_are(base_folder: Path, targets: str) -> None:
    """The sentence names what the base has; the head is no target."""
    config = TrainConfig(targets=targets)
    model = bases.find(str(base_folder)).load_model()
    with pytest.raises(ConfigError, match=f"linears of this base are {', '.join(LLAMA)}"):
        adaptation.adapt(model, config)


def test_published_config_names_no_path(base_folder: Path) -> None:
    """What PEFT will write: the base's reference and sorted targets, the settings, and nothing of this machine."""
    pin = bases.find(str(base_folder)).pin()
    published = adaptation.published_config(TrainConfig(rank=4, alpha=12, dropout=0.1), pin, LLAMA[::-1])
    assert (published.base_model_name_or_path, published.revision) == (pin.reference, None)
    assert published.target_modules == list(LLAMA)
    assert (published.r, published.lora_alpha, published.lora_dropout, published.inference_mode) == (4, 12, 0.1, True)
    assert str(base_folder) not in str(published.to_dict())


def test_quiet_hides_the_warnings_of_libraries_alone() -> None:
    """Ours are still warnings; so are those of others after it."""
    with adaptation.quiet():
        warnings.warn_explicit("theirs", UserWarning, "x.py", 1, module="peft.utils.save_and_load")
        with pytest.warns(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="theirs"):
        warnings.warn_explicit("theirs", UserWarning, "x.py", 1, module="peft.utils.save_and_load")
