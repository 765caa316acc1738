from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForSequenceClassification

from moehub import base as bases
from moehub.base import Base
from moehub.errors import BaseModelError, ExpertError, MergeError
from moehub.experts.examples import Preference
from moehub.experts.folder import Expert
from moehub.experts.stages.reward import open_rater
from moehub.experts.stages.settings import RewardConfig
from moehub.experts.training import train
from moehub.merge.merging import Recipe, prepare
from moehub.models import open_model
from tests.builders import tiny_base
from tests.experts.stages.practice import PREFERENCES, SMALL, asked
from tests.experts.trainings import Interrupted, ignore_peft, interrupt_at, same

pytestmark = ignore_peft
CONFIG = RewardConfig(**SMALL)


@pytest.fixture(scope="module")
def rating(base: Base, tuned: Expert, tmp_path_factory: pytest.TempPathFactory) -> Expert:
    """A reward model of sums."""
    config = RewardConfig(**{**SMALL, "max_steps": 30})
    output = tmp_path_factory.mktemp("rewards") / "rating"
    return train(base, "sums", PREFERENCES, output, config, stage="reward", start=tuned)


def test_a_reward_model_prefers_what_people_do(rating: Expert) -> None:
    """On pairs that were held out; it is no expert, has no statistics and promises no loss."""
    card = rating.card
    assert (card.purpose, card.metrics, card.stages[-1].kind) == ("reward", None, "reward")
    assert card.stages[-1].measured is not None
    assert card.stages[-1].measured.after >= 0.9
    assert "router_stats.safetensors" not in card.files


def test_it_rates_as_peft_does(base: Base, rating: Expert) -> None:
    """The folder is PEFT's: transformers' classification head gives the same numbers, one text at a time."""
    rater = open_rater(rating.folder, base)
    prompts, said = [one.prompt for one in PREFERENCES[:4]], [one.chosen for one in PREFERENCES[:4]]
    found = rater(prompts, said)
    tokenizer = base.load_tokenizer()
    plain = AutoModelForSequenceClassification.from_pretrained(base.folder, num_labels=1)
    plain.config.pad_token_id = tokenizer.pad_token_id
    theirs = PeftModel.from_pretrained(plain, rating.folder).eval()
    for number, reward in enumerate(found):
        text = f"User: {number}+{number}?\n\nAssistant: {2 * number}.<|end|>"
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        assert float(theirs(input_ids=ids).logits) == pytest.approx(reward, abs=1e-4)
    assert len(set(found)) > 1


def test_an_interrupted_reward_model_goes_on(base: Base, tuned: Expert, tmp_path: Path) -> None:
    """Adapter and head are those of an uninterrupted training."""
    whole = train(base, "sums", PREFERENCES, tmp_path / "whole", CONFIG, stage="reward", start=tuned)
    with pytest.raises(Interrupted):
        train(base, "sums", PREFERENCES, tmp_path / "cut", CONFIG, stage="reward", start=tuned, on_step=interrupt_at(4))
    cut = train(base, "sums", PREFERENCES, tmp_path / "cut", CONFIG, stage="reward", start=tuned, resume=True)
    assert same(whole.folder, cut.folder)


def test_only_reward_models_of_this_base_rate(base: Base, tuned: Expert, rating: Expert, tmp_path: Path) -> None:
    """An expert gives answers, and another base reads them differently."""
    with pytest.raises(ExpertError, match="is an expert and no reward model"):
        open_rater(tuned.folder, base)
    other = bases.find(str(tiny_base(tmp_path / "other", seed=3)))
    with pytest.raises(BaseModelError, match="was not trained on it"):
        open_rater(rating.folder, other)


def test_nobody_takes_it_for_an_expert(base: Base, rating: Expert, tmp_path: Path) -> None:
    """Neither a merge nor whoever wants text of it."""
    recipe = Recipe(base=str(base.folder), experts=(str(rating.folder),))
    with pytest.raises(MergeError, match=r"\[purpose\] it is a 'reward' model"), prepare(recipe) as prepared:
        prepared.write(tmp_path / "moe")
    with pytest.raises(ExpertError, match="rates answers and writes none"):
        open_model(str(rating.folder), base=str(base.folder))


def test_nothing_starts_from_a_reward_model(base: Base, rating: Expert, tmp_path: Path) -> None:
    """Its adapter was trained to rate."""
    with pytest.raises(ExpertError, match="which gives no answers"):
        train(base, "sums", PREFERENCES, tmp_path / "x", CONFIG, stage="reward", start=rating)


def test_an_empty_answer_is_rated_too(base: Base, rating: Expert) -> None:
    """A policy may say nothing."""
    (reward,) = open_rater(rating.folder, base)([asked(1)], [""])
    assert reward == reward  # noqa: PLR0124 (it is a number)


def test_equal_ratings_count_half(base: Base, tuned: Expert, tmp_path: Path) -> None:
    """A head that is hardly trained is right about as often as not."""
    config = RewardConfig(**{**SMALL, "learning_rate": 1e-12, "max_steps": 1, "holdout": 0.5})
    mixed = [Preference(o.prompt, *((o.chosen, o.rejected) if i % 2 else (o.rejected, o.chosen)))
             for i, o in enumerate(PREFERENCES)]  # fmt: skip
    expert = train(base, "sums", mixed, tmp_path / "x", config, stage="reward", start=tuned)
    assert expert.card.stages[-1].measured is not None
    assert 0.2 < expert.card.stages[-1].measured.after < 0.8
