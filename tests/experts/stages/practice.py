"""Material for stages that take a second: sums, asked and answered, well and badly."""

from pathlib import Path
from typing import Any

from moehub import base as bases
from moehub.base import Base
from moehub.chat import Message
from moehub.experts.examples import Conversation, Preference, Rated, Task
from tests.builders import tiny_base


def asked(number: int) -> tuple[Message, ...]:
    """Return a question."""
    return (Message("user", f"{number}+{number}?"),)


ANSWERED = [Conversation((*asked(number), Message("assistant", f"{2 * number}."))) for number in range(60)]
PREFERENCES = [Preference(asked(number), f"{2 * number}.", f"no {number}") for number in range(60)]
RATED = [
    Rated(one.prompt, one.chosen if number % 2 else one.rejected, good=bool(number % 2))
    for number, one in enumerate(PREFERENCES)
]
TASKS = [Task(asked(number), {"answer": 2 * number}) for number in range(40)]
SMALL: dict[str, Any] = {
    "rank": 4,
    "learning_rate": 1e-2,
    "context_length": 96,
    "batch_size": 4,
    "max_steps": 8,
    "save_every": 3,
    "holdout": 0.25,
}


def small_base(folder: Path) -> Base:
    """Return a base wide enough to be held in four bits, whose head is strong enough to be sure of something."""
    return bases.find(str(tiny_base(folder, hidden_size=64, intermediate_size=128, head_dim=16, initializer_range=0.1)))
