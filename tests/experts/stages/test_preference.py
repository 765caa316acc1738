import json
from pathlib import Path
from typing import Any

import pytest
import torch

from moehub.base import Base
from moehub.card import CURVES_FILE
from moehub.errors import ConfigError, DataError
from moehub.experts import statistics
from moehub.experts.examples import Preference, Rated
from moehub.experts.folder import Expert, open_expert
from moehub.experts.stages.kinds import make
from moehub.experts.stages.preference import PreferenceStage
from moehub.experts.stages.settings import PreferenceConfig
from moehub.experts.training import train
from tests.experts.stages.practice import PREFERENCES, RATED, SMALL, asked
from tests.experts.trainings import Interrupted, adapter, ignore_peft, interrupt_at, same

pytestmark = ignore_peft
CONFIG = PreferenceConfig(**SMALL)
# What was fine-tuned on sums likes those better at first.
REVERSED = [Preference(one.prompt, one.rejected, one.chosen) for one in PREFERENCES]
REVERSED_ONES = [Rated(one.prompt, one.completion, good=not one.good) for one in RATED]


@pytest.mark.parametrize(("stage", "examples"), [("dpo", REVERSED), ("kto", REVERSED_ONES)])
def test_answers_that_were_preferred_become_likelier(
    base: Base, tuned: Expert, tmp_path: Path, stage: str, examples: list[Any]
) -> None:
    """The held-out accuracy rises, the card tells the lineage, and the curves are kept."""
    config = PreferenceConfig(**{**SMALL, "max_steps": 25, "learning_rate": 3e-2})
    expert = train(base, "sums", examples, tmp_path / "better", config, stage=stage, start=tuned)
    first, last = expert.card.stages
    assert (first, last.kind) == (tuned.card.stages[0], stage)
    assert last.start == tuned.card.files["adapter_model.safetensors"]
    assert last.measured is not None
    assert last.measured.metric == "preference accuracy"
    assert last.measured.before < 0.5
    assert last.measured.after > 0.9
    curves = json.loads((expert.folder / CURVES_FILE).read_text())["stages"]
    assert [one["kind"] for one in curves] == ["sft", stage]
    assert [step for step, _ in curves[1]["curves"]["loss"]] == list(range(1, 26))


@pytest.mark.parametrize(("stage", "examples"), [("dpo", PREFERENCES), ("kto", RATED)])
def test_an_interrupted_stage_goes_on_where_it_was(
    base: Base, tuned: Expert, tmp_path: Path, stage: str, examples: list[Any]
) -> None:
    """To the bit as if it had not been: the policy is held to the start, not to the checkpoint."""
    whole = train(base, "sums", examples, tmp_path / "whole", CONFIG, stage=stage, start=tuned)
    with pytest.raises(Interrupted):
        train(base, "sums", examples, tmp_path / "cut", CONFIG, stage=stage, start=tuned, on_step=interrupt_at(5))
    assert not (tmp_path / "cut").exists()
    cut = train(base, "sums", examples, tmp_path / "cut", CONFIG, stage=stage, start=tuned, resume=True)
    assert same(whole.folder, cut.folder)
    assert [one.steps for one in cut.card.stages] == [one.steps for one in whole.card.stages]
    assert cut.card.stages[-1].tokens == whole.card.stages[-1].tokens


def test_a_stage_starts_from_the_adapter_it_is_given(base: Base, tuned: Expert, tmp_path: Path) -> None:
    """With a learning rate of almost nothing, the adapter stays the start's."""
    config = PreferenceConfig(**{**SMALL, "learning_rate": 1e-12, "max_steps": 1})
    expert = train(base, "sums", PREFERENCES, tmp_path / "same", config, stage="dpo", start=tuned)
    before, after = adapter(tuned.folder), adapter(expert.folder)
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[name], after[name], atol=1e-9) for name in before)
    assert sorted(path.name for path in expert.folder.iterdir()) == sorted(p.name for p in tuned.folder.iterdir())


def test_counts_are_those_of_all_stages(base: Base, tuned: Expert, tmp_path: Path) -> None:
    """The text of this stage, good answers with their prompts, is added to what was counted before."""
    expert = train(base, "sums", PREFERENCES, tmp_path / "more", CONFIG, stage="dpo", start=tuned)
    made = make("dpo", base.load_tokenizer(), PREFERENCES, CONFIG, longest=256)
    card = expert.card
    counted = statistics.count(
        [one.seen for one in made.documents],
        tokenizer=card.base.tokenizer,
        vocabulary=len(base.load_tokenizer()),
        pair_bits=16,
        triple_bits=18,
    ).suppress(3)
    before = tuned.statistics()
    assert torch.equal(open_expert(expert.folder).statistics().unigrams, counted.unigrams + before.unigrams)


def test_prompts_have_no_loss_and_answers_end(base: Base) -> None:
    """What is compared are the answers with their end; the prompt is read as the model is asked."""
    made = make("dpo", base.load_tokenizer(), PREFERENCES[:8], PreferenceConfig(holdout=0), longest=256)
    assert isinstance(made, PreferenceStage)
    tokenizer = base.load_tokenizer()
    row = made._pairs()[0]
    assert tokenizer.decode(row["prompt_ids"]) == "User: 0+0?\n\nAssistant:"
    assert tokenizer.decode(row["chosen_ids"]) == " 0.<|end|>"
    assert tokenizer.decode(row["rejected_ids"]) == " no 0<|end|>"


@pytest.mark.parametrize(
    ("stage", "examples", "changes", "error", "sentence"),
    [
        ("kto", [Rated("2+2=", "4", good=True)] * 2, {}, DataError, "all answers are good ones"),
        ("kto", RATED, {"batch_size": 1}, ConfigError, "leaves one"),
        ("kto", RATED, {"loss": "ipo"}, ConfigError, "a loss of dpo"),
        ("dpo", PREFERENCES, {"context_length": 8}, DataError, "longer than the context of 8 tokens"),
        ("dpo", PREFERENCES, {"context_length": 8, "too_long": "skip"}, DataError, "none of 60 example"),
        ("dpo", PREFERENCES, {"context_length": 999}, ConfigError, "takes at most 256"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(
    base: Base, stage: str, examples: list[Any], changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    """Before anything is loaded."""
    config = PreferenceConfig(**{"holdout": 0.0, **changes})
    with pytest.raises(error, match=sentence):
        make(stage, base.load_tokenizer(), examples, config, longest=256)


def test_adapters_without_a_twin_to_compare_with_are_refused() -> None:
    """TRL keeps the start beside the trained adapter, which it can of low-rank ones."""
    with pytest.raises(ConfigError, match="lora, rslora or dora in this stage"):
        PreferenceConfig(method="prefix")


def test_long_pairs_are_left_out_together(base: Base) -> None:
    """Neither of its answers is trained on."""
    long = Preference(asked(7), "1 " * 60, "short")
    config = PreferenceConfig(holdout=0.0, context_length=48, too_long="skip")
    made = make("dpo", base.load_tokenizer(), [*PREFERENCES, long], config, longest=256)
    assert (made.examples, len(made.left_out)) == (60, 1)
