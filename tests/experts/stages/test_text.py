from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from moehub.base import Base
from moehub.errors import ConfigError, DataError, MergeError
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.examples import Example, Text
from moehub.experts.folder import Expert
from moehub.experts.settings import TrainConfig
from moehub.experts.stages.kinds import make
from moehub.experts.stages.settings import PreferenceConfig
from moehub.experts.stages.text import TextStage
from moehub.experts.training import train
from moehub.merge.merging import Recipe, prepare
from tests.builders import tiny_base
from tests.experts.stages.practice import ANSWERED, SMALL, small_base
from tests.experts.trainings import TEXTS, Interrupted, ignore_peft, interrupt_at, same

pytestmark = ignore_peft


def _config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**SMALL, "holdout_tokens": 1000, **changes})


def _loss_of(base: Base, expert: Expert) -> tuple[float, int]:
    """Return the loss on what was held out, with PEFT and transformers alone."""
    made = make("auto", base.load_tokenizer(), TEXTS, _config(), longest=256)
    assert isinstance(made, TextStage)
    _, rows = made.material.rows(join=False)
    model = PeftModel.from_pretrained(base.load_model(dtype=torch.float32), expert.folder)
    return evaluate_loss(model, rows)


def _merge(base: Base, expert: Expert, output: Path) -> None:
    with prepare(Recipe(base=str(base.folder), experts=(str(expert.folder),))) as prepared:
        prepared.write(output)


@pytest.mark.filterwarnings("ignore:Position ids are not supported:UserWarning")
@pytest.mark.parametrize("method", ["rslora", "dora", "prefix", "p-tuning", "ia3"])
def test_peft_loads_what_every_method_trained(base: Base, tmp_path: Path, method: str) -> None:
    """The loss fell, and PEFT measures the one on the card."""
    own = {"targets": ("k_proj", "v_proj", "down_proj"), "learning_rate": 0.1} if method == "ia3" else {}
    expert = train(base, "law", TEXTS, tmp_path / "law", _config(method=method, **own))
    metrics = expert.card.metrics
    assert metrics is not None
    assert metrics.expert_loss < metrics.base_loss
    loss, tokens = _loss_of(base, expert)
    assert loss == pytest.approx(metrics.expert_loss, abs=1e-4)
    assert tokens == metrics.tokens


@pytest.mark.parametrize("method", ["prefix", "p-tuning", "ia3"])
def test_merge_refuses_what_is_for_use_alone(base: Base, tmp_path: Path, method: str) -> None:
    """It says what it is, and what would do."""
    own = {"targets": ("k_proj", "v_proj", "down_proj")} if method == "ia3" else {}
    expert = train(base, "law", TEXTS, tmp_path / "law", _config(method=method, max_steps=1, **own))
    with pytest.raises(MergeError, match=r"is a \w+ adapter, expected LORA"):
        _merge(base, expert, tmp_path / "moe")


@pytest.mark.parametrize("method", ["lora", "rslora", "prefix"])
def test_an_interrupted_method_goes_on(base: Base, tmp_path: Path, method: str) -> None:
    """To the bit."""
    whole = train(base, "law", TEXTS, tmp_path / "whole", _config(method=method))
    with pytest.raises(Interrupted):
        train(base, "law", TEXTS, tmp_path / "cut", _config(method=method), on_step=interrupt_at(5))
    cut = train(base, "law", TEXTS, tmp_path / "cut", _config(method=method), resume=True)
    assert same(whole.folder, cut.folder)


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_a_base_in_few_bits_trains_an_expert_of_the_whole_base(base: Base, tmp_path: Path, kind: str) -> None:
    """The card says so, the adapter is PEFT's, and it helps the base as it is, in all its bits."""
    expert = train(base, "law", TEXTS, tmp_path / "law", _config(quantize=kind, max_steps=12))
    (stage,) = expert.card.stages
    assert (stage.quantized, expert.card.base) == (kind, base.pin())
    loss, _ = _loss_of(base, expert)
    assert expert.card.metrics is not None
    assert loss < expert.card.metrics.base_loss - 0.1
    _merge(base, expert, tmp_path / "moe")


def test_a_base_too_narrow_for_four_bits_is_refused(tmp_path: Path) -> None:
    """Its weights do not fill a block."""
    from moehub import base as bases

    narrow = bases.find(str(tiny_base(tmp_path / "base")))
    with pytest.raises(ConfigError, match="blocks of 64, and this base is 32 wide"):
        train(narrow, "law", TEXTS, tmp_path / "law", _config(quantize="nf4"))


def test_without_bitsandbytes_it_says_how_to_have_it(
    base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"pip install 'moehub\[quantize\]'"):
        train(base, "law", TEXTS, tmp_path / "law", _config(quantize="int8"))


def test_pretraining_takes_documents_alone(base: Base) -> None:
    """Questions would be learned too."""
    examples: list[Example] = [Text("a document of some words"), *ANSWERED]
    with pytest.raises(DataError, match=r"is no document \(60 of 61"):
        make("pretrain", base.load_tokenizer(), examples, TrainConfig(), longest=256)


def test_a_stage_takes_its_own_settings(base: Base) -> None:
    """Those of preferences have no meaning for text, and the other way round."""
    for stage, config in (("dpo", TrainConfig()), ("sft", PreferenceConfig())):
        with pytest.raises(ConfigError, match=f"stage {stage} takes a"):
            make(stage, base.load_tokenizer(), ANSWERED, config, longest=256)


def test_packed_answers_do_not_see_each_other(tmp_path: Path) -> None:
    """The losses of a row of many are those of each alone: positions and attention begin anew."""
    base = small_base(tmp_path / "base")
    made = make("sft", base.load_tokenizer(), ANSWERED, TrainConfig(context_length=96, holdout=0), longest=256)
    assert isinstance(made, TextStage)
    model = base.load_model(dtype=torch.float32)
    packed, _ = made.material.rows(join=True)
    alone, _ = made.material.rows(join=False)
    assert len(packed) == len(alone) / 3
    loss, tokens = evaluate_loss(model, alone)
    together, learned = evaluate_loss(model, packed)
    assert together == pytest.approx(loss, abs=1e-5)
    assert learned == tokens
