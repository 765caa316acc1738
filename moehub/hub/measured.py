"""`evaluation.json`: what a MoE turned out to be worth, and where its tokens went; it travels with the MoE.

It names the digest of the `config.json` that was measured, so that a MoE cannot boast with another one's figures by
mistake. Changing a MoE makes a new folder, without it.
"""

import dataclasses
import json
import math
import re
from dataclasses import dataclass
from typing import Any

from moehub import config, files
from moehub.errors import ConfigError, HubError, listed

MEASURED_FILE = "evaluation.json"
FORMAT = 1
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,64}")
_MOST_TEXTS = 100
_ROUNDING = 1e-3


@dataclass(frozen=True)
class MeasuredText:
    """A MoE on one text."""

    loss: float
    """Mean over the learned tokens, nats per token."""
    tokens: int
    """How many those are."""
    routing: dict[str, float]
    """Mean gate weight of each expert, and of "null", over all tokens."""
    base_loss: float | None = None
    """The base's loss on the same tokens, where it was measured beside the MoE."""

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return math.exp(min(self.loss, 700.0))


@dataclass(frozen=True)
class Measured:
    """What is kept of an evaluation."""

    config: str
    """sha256 of the `config.json` of the MoE that was measured."""
    texts: dict[str, MeasuredText]
    """Name of a text → the MoE on it."""
    format: int = FORMAT

    def __post_init__(self) -> None:
        """Refuse figures that cannot be true.

        Raises:
            ConfigError: all of them, listed.
        """
        faults = [] if self.format == FORMAT else [f"format = {self.format}, expected {FORMAT}: update moehub"]
        if not 0 < len(self.texts) <= _MOST_TEXTS:
            faults.append(f"{len(self.texts)} texts, expected 1 to {_MOST_TEXTS}")
        for name, text in self.texts.items():
            faults += [] if _NAME.fullmatch(name) else [f"the text {name!r:.80} has no name of 1 to 64 characters"]
            faults += [f"{name!r:.80}: {fault}" for fault in _faults(text)]
        if faults:
            raise ConfigError(listed(f"this is no {MEASURED_FILE} that can be used:", faults))

    def to_json(self) -> str:
        """Return the text of `evaluation.json`."""
        return files.to_json(dataclasses.asdict(self))


def parse_measured(text: str) -> Measured:
    """Return what the text of an `evaluation.json` says.

    Raises:
        HubError: it is no `evaluation.json` of format 1.
    """
    try:
        values: dict[str, Any] = json.loads(text)
        texts = {
            name: config.from_mapping(MeasuredText, each, source=f"{MEASURED_FILE}: {name!r:.80}")
            for name, each in values["texts"].items()
        }
        return config.from_mapping(Measured, {**values, "texts": texts}, source=MEASURED_FILE)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ConfigError) as error:
        raise HubError(f"{MEASURED_FILE} cannot be used ({error}): evaluate the MoE again with --keep") from error


def _faults(text: MeasuredText) -> list[str]:
    losses = {"loss": text.loss, "base_loss": text.base_loss}
    faults = [
        f"{name} = {loss}, expected a finite number, 0 or more"
        for name, loss in losses.items()
        if loss is not None and not 0 <= loss < math.inf
    ]
    if text.tokens < 1:
        faults.append(f"tokens = {text.tokens}, expected 1 or more")
    shares = list(text.routing.values())
    if not all(_is_share(share) for share in shares) or sum(shares) > 1 + _ROUNDING:
        faults.append("its routing is no set of shares that add up to 1 at most")
    return faults


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1 + _ROUNDING
