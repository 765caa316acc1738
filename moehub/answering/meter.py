"""What asking a model cost: requests, tokens, and money where a price is known."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moehub.errors import ConfigError


@dataclass(frozen=True)
class Price:
    """What tokens cost, in whatever currency, a million of them.

    Raises:
        ConfigError: a price is below 0.
    """

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if not (self.prompt >= 0 and self.completion >= 0):
            raise ConfigError(
                f"the price of a million tokens is {self.prompt} and {self.completion}, expected 0 or more"
            )


class Meter:
    """Counts what one model was asked; several threads may count at once."""

    def __init__(self, price: Price | None = None) -> None:
        self.price = price
        self.requests = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.undecided = 0
        """Questions that were answered with neither yes nor no."""
        self._lock = threading.Lock()

    def count(
        self, *, requests: int = 0, prompt_tokens: int = 0, completion_tokens: int = 0, undecided: int = 0
    ) -> None:
        """Add to what was counted."""
        with self._lock:
            self.requests += requests
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens
            self.undecided += undecided

    def spent(self, since: Mapping[str, int] | None = None) -> dict[str, int]:
        """Return what was counted, or how much more it is than at another time; `count` takes it back in."""
        names = ("requests", "prompt_tokens", "completion_tokens", "undecided")
        return {name: getattr(self, name) - (since or {}).get(name, 0) for name in names}

    @property
    def cost(self) -> float | None:
        """What it cost in the price's currency; None where no price is known."""
        if self.price is None:
            return None
        return (self.prompt_tokens * self.price.prompt + self.completion_tokens * self.price.completion) / 1e6

    def to_dict(self) -> dict[str, Any]:
        """Return everything, the cost too, as JSON has it."""
        return {**self.spent(), "cost": self.cost}

    def __str__(self) -> str:
        tokens = f"{self.prompt_tokens:,} tokens read and {self.completion_tokens:,} written"
        return f"{self.requests:,} requests, {tokens}" + ("" if self.cost is None else f", cost {self.cost:.4f}")
