from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moehub.answering.answerer import GREEDY, Answer, Sampling
from moehub.chat import Prompt
from moehub.errors import AnsweringError, BaseModelError
from moehub.experts.examples import Task
from moehub.experts.rewards import RewardModel


@dataclass
class Believer:
    """A judge that says yes to what holds `please`, and remembers what it was asked."""

    asked: list[Prompt] = field(default_factory=list)
    name: str = "believer"

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Answer]:
        raise AnsweringError(f"it is asked {len(prompts)} questions with {sampling}, and only says yes or no")

    def yes_probability(self, questions: Sequence[Prompt]) -> list[float]:
        self.asked += questions
        return [0.9 if "please" in str(question) else 0.2 for question in questions]


@dataclass
class Shelf:
    """Opens the judge `org/judge` and the reward model `rm`, and nothing else."""

    judge: Believer = field(default_factory=Believer)
    opened: list[str] = field(default_factory=list)

    def answerer(self, reference: str) -> Believer:
        if reference != "org/judge":
            raise BaseModelError(f"there is no model {reference}")
        self.opened.append(reference)
        return self.judge

    def reward_model(self, folder: str) -> RewardModel:
        if folder != "rm":
            raise BaseModelError(f"there is no reward model in {folder}")
        return lambda prompts, answers: [float(len(str(p)) + len(a)) for p, a in zip(prompts, answers, strict=True)]


def task(prompt: Prompt = "q", origin: str = "tasks.jsonl:1", **fields: Any) -> Task:
    return Task(prompt, fields, origin)


def brevity(prompt: str, answer: str, fields: Mapping[str, Any], most: int = 10) -> float | None:
    """A person's own reward."""
    return None if fields.get("any_length") else float(len(prompt) + len(answer) <= most)


def broken(prompt: str, answer: str, fields: Mapping[str, Any]) -> float:
    raise ValueError(f"no {prompt} {answer} {len(fields)}")


def infinite(prompt: str, answer: str, fields: Mapping[str, Any]) -> Any:
    return float("inf") if prompt and answer else fields


def narrow(prompt: str) -> float:
    return float(len(prompt))


no_function = 3
