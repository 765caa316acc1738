"""`yes-no` and `reward-model`: what another model thinks of an answer."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from moehub.answering.answerer import Answerer
from moehub.chat import Message
from moehub.errors import ConfigError
from moehub.experts.examples import Task
from moehub.experts.rewards.reward import Opener, RewardModel, Scores, text_of

_TEMPLATE = "{prompt}\n\n---\nAn answer to this was:\n\n{answer}\n\n---\n{question}\nReply with yes or no."


@dataclass(frozen=True)
class YesNo:
    """Options of `yes-no`: a judge is asked a question about prompt and answer.

    Raises:
        ConfigError: the template has other places than those that are filled, or none for the answer.
    """

    name: ClassVar[str] = "yes-no"
    judge: str
    """The model that is asked."""
    question: str
    """As `Is the answer polite?`; yes is good."""
    template: str = _TEMPLATE
    """What the judge reads; `{prompt}`, `{answer}` and `{question}` are filled in."""

    def __post_init__(self) -> None:
        try:
            places = {name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None}
        except ValueError as error:
            raise ConfigError(f"the template is none ({error}): double the braces that are to stay") from error
        if "answer" not in places or places - {"prompt", "answer", "question"}:
            named = ", ".join(sorted(f"{{{name}}}" for name in places)) or "none"
            raise ConfigError(f"the template has the places {named}, expected {{answer}}, {{prompt}} and {{question}}")

    def open(self, opener: Opener) -> "Judged":
        """Return the reward, with its judge opened."""
        return Judged(self, opener.answerer(self.judge))


@dataclass(frozen=True)
class Judged:
    """The reward `yes-no`: how probable the judge's yes is, between 0 and 1."""

    options: YesNo
    judge: Answerer
    name: ClassVar[str] = YesNo.name

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:
        """Return the probability of a yes about each answer."""
        questions = [(Message("user", self._asked(task, answer)),) for task, answer in zip(tasks, answers, strict=True)]
        return list(self.judge.yes_probability(questions))

    def _asked(self, task: Task, answer: str) -> str:
        return self.options.template.format(prompt=text_of(task.prompt), answer=answer, question=self.options.question)


@dataclass(frozen=True)
class ByModel:
    """Options of `reward-model`."""

    name: ClassVar[str] = "reward-model"
    model: str
    """The folder of a reward model."""
    scale: float = 1.0
    """Its values are multiplied by this,"""
    shift: float = 0.0
    """and then this is added."""

    def open(self, opener: Opener) -> "Modelled":
        """Return the reward, with its model opened."""
        return Modelled(self, opener.reward_model(self.model))


@dataclass(frozen=True)
class Modelled:
    """The reward `reward-model`: what a model says that was trained on preferences."""

    options: ByModel
    model: RewardModel
    name: ClassVar[str] = ByModel.name

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:
        """Return the model's value of each answer."""
        values = self.model([task.prompt for task in tasks], answers)
        return [value * self.options.scale + self.options.shift for value in values]
