"""What every model that answers can do, wherever it runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from moehub.chat import Prompt
from moehub.errors import ConfigError


@dataclass(frozen=True)
class Sampling:
    """How answers are written.

    Raises:
        ConfigError: a number is outside its range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 takes the most probable token."""
    top_p: float = 1.0
    """Only the most probable tokens with this total probability are drawn from."""
    seed: int | None = None
    """Equal calls with equal seeds give equal answers, as far as the model's server keeps to it."""

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens = {self.max_new_tokens}, expected at least 1")
        if not self.temperature >= 0:
            raise ConfigError(f"temperature = {self.temperature}, expected 0 (the most probable token) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p = {self.top_p}, expected more than 0 and at most 1")

    def options(self) -> dict[str, object]:
        """Return the arguments of transformers' `generate`."""
        options: dict[str, object] = {"max_new_tokens": self.max_new_tokens, "do_sample": self.temperature > 0}
        if self.temperature > 0:
            options |= {"temperature": self.temperature, "top_p": self.top_p}
        return options


@dataclass(frozen=True)
class Answer:
    """What a model wrote."""

    text: str
    """Without the prompt, and without marks as the end of the turn."""
    prompt_tokens: int
    completion_tokens: int


GREEDY = Sampling()
"""The most probable tokens, at most 256 of them."""


class Answerer(Protocol):
    """A model that answers prompts and questions."""

    @property
    def name(self) -> str:
        """Return what the model is called in results."""
        ...

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Answer]:
        """Return one answer for each prompt, in order.

        Raises:
            MoehubError: the model cannot be asked this.
        """
        ...

    def yes_probability(self, questions: Sequence[Prompt]) -> list[float]:
        """Return for each question p(yes) / (p(yes) + p(no)) as the model's first word, between 0 and 1.

        Raises:
            MoehubError: the model cannot tell yes from no, or does not show its probabilities.
        """
        ...
