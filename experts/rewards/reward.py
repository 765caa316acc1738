"""What a reward is: it looks at answers to tasks, and says how good each is, as a number."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from moehub.answering.answerer import Answerer
from moehub.chat import Message, Prompt
from moehub.experts.examples import Task

Scores: TypeAlias = list[float | None]
"""One value for each answer; None where a reward says nothing about a task."""
RewardModel: TypeAlias = Callable[[Sequence[Prompt], Sequence[str]], list[float]]
"""Prompts and answers → how good each answer is, by a model that was trained on preferences."""


class Reward(Protocol):
    """Says how good answers are."""

    @property
    def name(self) -> str:
        """Return what it is called in settings."""
        ...

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:
        """Return a value for each answer, or None where this reward says nothing about its task."""
        ...


class Opener(Protocol):
    """Opens the models that rewards ask, wherever they run."""

    def answerer(self, reference: str) -> Answerer:
        """Return the model that a reference names."""
        ...

    def reward_model(self, folder: str) -> RewardModel:
        """Return the reward model in a folder."""
        ...


@dataclass(frozen=True)
class Weighted:
    """A reward and how much it counts."""

    label: str
    """What it is called in these settings, and in what is reported."""
    weight: float
    """Its values are multiplied by this before they are added up; 0 only reports them."""
    reward: Reward


@dataclass(frozen=True)
class OfField:
    """Options of a reward that reads a field of the task; it says nothing about a task without."""

    field: str
    """The field's name."""

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with a field's value, as the end of a sentence, or None."""
        raise NotImplementedError

    def known(self, task: Task) -> bool:
        """Return whether a task has the field."""
        return task.fields.get(self.field) is not None


def text_of(prompt: Prompt) -> str:
    """Return a prompt as a text: one question as it stands, several turns with who says them."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return "\n\n".join(_turn(message) for message in prompt)


def _turn(message: Message) -> str:
    return f"{message.role.capitalize()}: {message.content}"


Options: TypeAlias = Mapping[str, Any]
"""What stands in the settings of one reward beside its weight."""
