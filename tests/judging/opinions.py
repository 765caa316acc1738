"""A judge and models whose opinions a test decides."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from moehub.answering.answerer import GREEDY, Answer, Sampling
from moehub.answering.meter import Meter
from moehub.chat import Prompt

Believes = Callable[[str], float]
_FIRST = re.compile(r"<first-answer>\n(.*)\n</first-answer>", re.DOTALL)
_SECOND = re.compile(r"<second-answer>\n(.*)\n</second-answer>", re.DOTALL)
_ONE = re.compile(r"<answer>\n(.*)\n</answer>", re.DOTALL)


def text_of(prompt: Prompt) -> str:
    """Return what is asked last."""
    return prompt if isinstance(prompt, str) else prompt[-1].content


def shown(question: str) -> tuple[str, ...]:
    """Return the answer or the two that a judge was shown."""
    patterns = (_ONE,) if "<answer>" in question else (_FIRST, _SECOND)
    return tuple(found[1] for pattern in patterns if (found := pattern.search(question)))


def by_length(question: str) -> float:
    """Prefer the longer answer."""
    first, second = shown(question)
    return 0.5 if len(first) == len(second) else 0.9 if len(first) > len(second) else 0.2


def the_first(_: str) -> float:
    """Prefer what stands first."""
    return 0.8


class Opinionated:
    """Answers and judges as it is told, and remembers what it was asked."""

    def __init__(
        self, name: str = "judge", *, believes: Believes = by_length, says: Callable[[str], str] = str.upper
    ) -> None:
        self.name, self.believes, self.says = name, believes, says
        self.meter = Meter()
        self.asked: list[str] = []
        self.dies_after: int | None = None

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Answer]:
        return [self._answer(text_of(prompt), sampling) for prompt in prompts]

    def yes_probability(self, questions: Sequence[Prompt]) -> list[float]:
        return [self.believes(self._noted(text_of(question))) for question in questions]

    def _answer(self, text: str, sampling: Sampling) -> Answer:
        said = self.says(self._noted(text))[: sampling.max_new_tokens]
        return Answer(said, len(text), len(said))

    def _noted(self, text: str) -> str:
        if self.dies_after is not None and len(self.asked) >= self.dies_after:
            raise KeyboardInterrupt
        self.asked.append(text)
        self.meter.count(requests=1)
        return text


def opener(**models: Opinionated) -> Any:
    """Return what opens models by name, and fails for others."""

    def opened(reference: str) -> Opinionated:
        return models[reference]

    return opened
