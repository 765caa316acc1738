import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from moehub.base import Base
from moehub.card import CURVES_FILE
from moehub.chat import Prompt
from moehub.errors import ConfigError, DataError, TrainingError
from moehub.experts.examples import Task
from moehub.experts.folder import Expert
from moehub.experts.stages.kinds import make
from moehub.experts.stages.reinforce import Collapse, ReinforceStage
from moehub.experts.stages.settings import ReinforceConfig
from moehub.experts.training import train
from tests.experts.stages.practice import TASKS, asked
from tests.experts.trainings import Interrupted, adapter, ignore_peft, interrupt_at

pytestmark = ignore_peft
SMALL: dict[str, Any] = {
    "learning_rate": 3e-2,
    "context_length": 64,
    "batch_size": 16,
    "generations": 4,
    "max_new_tokens": 8,
    "max_steps": 30,
    "save_every": 3,
    "holdout": 0.4,
    "max_kl": 50.0,
    "beta": 0.01,
}
DIGITS = f"{__name__}.digits"


def digits(prompt: str, answer: str, fields: Mapping[str, Any]) -> float:  # noqa: ARG001 (a reward's signature)
    """Return the share of digits in an answer: a reward that a policy without any skill can learn."""
    return sum(character.isdigit() for character in answer) / max(len(answer), 1)


class Openers:
    """Opens nothing but a reward model of digits."""

    def answerer(self, reference: str) -> Any:
        """Refuse."""
        raise AssertionError(reference)

    def reward_model(self, folder: str) -> Any:  # noqa: ARG002 (an opener's signature)
        """Return what counts digits."""

        def rate(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
            return [digits(str(prompt), answer, {}) for prompt, answer in zip(prompts, answers, strict=True)]

        return rate


def _config(**changes: Any) -> ReinforceConfig:
    return ReinforceConfig(**{**SMALL, "rewards": {DIGITS: 1.0}, **changes})


@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_answers_that_are_rewarded_become_likelier(base: Base, tuned: Expert, tmp_path: Path, algorithm: str) -> None:
    """The held-out reward rises, the card says how far the policy went for it, and each reward has its curve."""
    rewards = {DIGITS: 1.0, "reward-model": {"model": "somewhere", "weight": 0.5}}
    config = _config(algorithm=algorithm, rewards=rewards)
    expert = train(base, "sums", TASKS, tmp_path / "x", config, stage="rl", start=tuned, opener=Openers())
    stage = expert.card.stages[-1]
    assert (stage.kind, stage.steps, expert.card.metrics) == ("rl", 30, None)
    assert stage.measured is not None
    assert stage.measured.metric == "reward"
    assert stage.measured.after > stage.measured.before + 0.2
    assert stage.measured.kl is not None
    assert stage.measured.kl > 0.01
    curves = json.loads((expert.folder / CURVES_FILE).read_text())["stages"][-1]["curves"]
    assert {"reward", "kl", "entropy", "length", f"reward {DIGITS}", "reward reward-model"} <= curves.keys()


def test_an_interrupted_policy_goes_on(base: Base, tuned: Expert, tmp_path: Path) -> None:
    """From its last checkpoint, with as many steps in all; what it answers is drawn again."""
    config = _config(max_steps=8)
    with pytest.raises(Interrupted):
        train(base, "sums", TASKS, tmp_path / "x", config, stage="rl", start=tuned, opener=Openers(),
              on_step=interrupt_at(5))  # fmt: skip
    steps: list[int] = []
    expert = train(
        base, "sums", TASKS, tmp_path / "x", config, stage="rl", start=tuned, opener=Openers(), resume=True,
        on_step=lambda step, _: steps.append(step),
    )  # fmt: skip
    assert steps == [4, 5, 6, 7, 8]
    curves = json.loads((expert.folder / CURVES_FILE).read_text())["stages"][-1]["curves"]
    assert [step for step, _ in curves["reward"]] == list(range(1, 9))


def test_equal_seeds_give_equal_policies(base: Base, tuned: Expert, tmp_path: Path) -> None:
    """What is sampled is decided by the seed."""
    folders = []
    for name in ("one", "other"):
        config = _config(max_steps=3)
        expert = train(base, "sums", TASKS, tmp_path / name, config, stage="rl", start=tuned, opener=Openers())
        folders.append(adapter(expert.folder))
    assert all(bool((folders[0][name] == folders[1][name]).all()) for name in folders[0])


def test_a_collapsing_policy_is_stopped(base: Base, tuned: Expert, tmp_path: Path) -> None:
    """The reason is said, nothing looks like an expert, and the checkpoints are there."""
    config = _config(max_kl=0.001, learning_rate=0.1, save_every=2)
    with pytest.raises(TrainingError, match=r"the policy collapses: .* above max_kl = 0.001"):
        train(base, "sums", TASKS, tmp_path / "x", config, stage="rl", start=tuned, opener=Openers())
    assert not (tmp_path / "x").exists()
    assert list((tmp_path / "x.training").glob("checkpoint-*/moehub.json"))


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ([{"kl": 2.0, "entropy": 1.0, "length": 10.0}] * 5, "2 nats per token from its start, above max_kl = 1"),
        ([{"kl": 0.0, "entropy": 0.001, "length": 10.0}] * 5, "its entropy is 0.001 nats, below min_entropy = 0.01"),
        (
            [{"kl": 0.0, "entropy": 1.0, "length": 10.0}] * 5 + [{"kl": 0.0, "entropy": 1.0, "length": 50.0}] * 3,
            "50 tokens long, 5 times what they were",
        ),
        (
            [{"kl": 0.0, "entropy": 1.0, "length": 10.0}] * 5 + [{"kl": 0.0, "entropy": 1.0, "length": 1.0}] * 3,
            "1 tokens long, 0.1 times what they were",
        ),
    ],
)
def test_each_sign_of_collapse_is_seen(numbers: list[dict[str, float]], sentence: str) -> None:
    """As the median of five steps; one step's number is noise."""
    guard = Collapse(ReinforceConfig(rewards={"exact": 1}))
    for step, values in enumerate(numbers[:-1], 1):
        guard(step, values)
    with pytest.raises(TrainingError, match=sentence):
        guard(len(numbers), numbers[-1])


def test_healthy_policies_go_on() -> None:
    """Also where a single step is far off, and where no KL is measured."""
    guard = Collapse(ReinforceConfig(rewards={"exact": 1}))
    for step in range(1, 30):
        guard(step, {"kl": 9.0 if step == 7 else -0.1, "entropy": 0.5, "length": 10.0 + step % 3})
    free = Collapse(ReinforceConfig(rewards={"exact": 1}, beta=0.0))
    for step in range(1, 10):
        free(step, {"entropy": 0.5, "length": 0.0})


@pytest.mark.parametrize(
    ("tasks", "changes", "error", "sentence"),
    [
        (TASKS[:6], {"batch_size": 64}, DataError, "a step takes 16"),
        (TASKS, {"max_new_tokens": 64}, ConfigError, "leaves no room for a prompt"),
        (TASKS, {"max_new_tokens": 50}, DataError, "longer than the 14 tokens that max_new_tokens"),
        (TASKS, {"rewards": {"exakt": 1}}, ConfigError, "there is no reward 'exakt'"),
        ([Task(asked(1))] * 20, {"rewards": {"exact": 1}}, DataError, "'answer'"),
    ],
)
def test_what_cannot_be_reinforced_is_refused(
    base: Base, tasks: list[Task], changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    """Before anything is loaded."""
    with pytest.raises(error, match=sentence):
        make("rl", base.load_tokenizer(), tasks, _config(**changes), longest=256, opener=Openers())


def test_settings_that_cannot_work_are_refused_at_once() -> None:
    """All of them, each with what would do."""
    with pytest.raises(ConfigError, match=r"(?s)generations = 5.*temperature = 0.*rewards = \{\}"):
        ReinforceConfig(generations=5, temperature=0.0)


def test_the_policy_answers_as_it_is_asked(base: Base) -> None:
    """Prompts are the template's, up to where the model is to answer; all of them are counted for the router."""
    made = make("rl", base.load_tokenizer(), TASKS, _config(holdout=0.0), longest=256, opener=Openers())
    assert isinstance(made, ReinforceStage)
    assert base.load_tokenizer().decode(made.documents[0].ids) == "User: 0+0?\n\nAssistant:"
    assert (len(made.documents), made.steps(1)) == (40, 30)
