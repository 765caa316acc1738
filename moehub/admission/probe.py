"""A base that is opened to measure experts on: one forward pass over a text without the expert, one with it."""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from moehub import base as bases
from moehub.base import Base
from moehub.errors import ExpertError
from moehub.experts import data, tokens
from moehub.experts.adapter import Adapter
from moehub.experts.dora import Factors
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.linears import shape_of
from moehub.experts.packing import Row, pack

LONGEST = 512
"""Tokens of a window."""
_TOGETHER = 1024
"""Tokens of a forward pass: the logits of more would fill a memory where the vocabulary is large."""


@dataclass(frozen=True)
class Losses:
    """What an expert does to the base on one text, in nats per token."""

    base: float
    expert: float
    tokens: int

    @property
    def rise(self) -> float:
        """How much higher the loss is with the expert, as a share; below zero it gained."""
        return self.expert / self.base - 1


@dataclass
class Probe:
    """A base in memory, and what was found out about the last texts; none of it depends on an expert."""

    model: Any
    tokenizer: Any
    texts: dict[tuple[Path, int, int], list[Row]] = field(default_factory=dict)
    """Text file, its time and the most tokens → its rows."""
    losses: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Digest of rows → the base's own loss, and how many tokens it is a mean over."""
    last: dict[str, tuple[Adapter, Losses]] = field(default_factory=dict)
    """Digest of rows → the expert that was measured last, and its losses: two checks ask for the same."""

    def rows(self, text: Path, most: int) -> list[Row]:
        """Return the first `most` tokens of a text file, cut into windows.

        Raises:
            DataError: the text cannot be used.
        """
        key = (text, text.stat().st_mtime_ns if text.is_file() else 0, most)
        if key not in self.texts:
            self.texts[key] = list(_first(self._read(text), most))
        return self.texts[key]

    def measure(self, adapter: Adapter, rows: Sequence[Row]) -> Losses:
        """Return the mean loss over rows without the expert and with it.

        Raises:
            ExpertError: the adapter does not fit the base.
        """
        key = hashlib.sha256(b"".join(row.ids.numpy().tobytes() + b";" for row in rows)).hexdigest()
        if key not in self.losses:
            self.losses[key] = evaluate_loss(self.model, rows, batch_tokens=_TOGETHER)
        base, count = self.losses[key]
        if key in self.last and self.last[key][0] is adapter:
            return self.last[key][1]
        with worn(self.model, adapter):
            expert, _ = evaluate_loss(self.model, rows, batch_tokens=_TOGETHER)
        self.last[key] = (adapter, Losses(base, expert, count))
        return self.last[key][1]

    def _read(self, text: Path) -> list[Row]:
        longest = bases.context_length(self.model.config)
        encoded = tokens.encode(self.tokenizer, data.read([text]))
        fitting, _ = tokens.fit(encoded, min(longest, LONGEST), too_long="cut", longest=longest)
        return pack(fitting, min(longest, LONGEST), join=False)


def opened(base: Base) -> Probe:
    """Return the base, from memory if it is the one that was opened last.

    Raises:
        BaseModelError: it cannot be loaded.
    """
    return _opened(base, bases.weights_digest(base.folder))


def forget() -> None:
    """Let go of the base that was opened last."""
    _opened.cache_clear()


@contextlib.contextmanager
def worn(model: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Add s·B·A to the linears of a model, or make them a DoRA's, for as long as the context lasts.

    The model's weights stay as they are.

    Raises:
        ExpertError: the adapter does not fit the model.
        BaseModelError: it is a DoRA, and the model's weights are quantised.
    """
    modules = {name: module for name, module in model.named_modules() if name in adapter.pairs}
    for linear, (A, B) in adapter.pairs.items():
        if linear not in modules or shape_of(modules[linear]) != (B.shape[0], A.shape[1]):
            raise ExpertError(f"its update of {linear!r:.100} fits no linear of the base: train it on this base")
    factors = Factors(adapter, modules)
    hooks = [
        modules[linear].register_forward_hook(
            partial(_add, A.float(), B.float(), adapter.scales[linear], factors.get(linear))
        )
        for linear, (A, B) in adapter.pairs.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@lru_cache(maxsize=1)
def _opened(base: Base, digest: str) -> Probe:
    with bases.quiet_transformers():
        model = base.load_model()
    model.requires_grad_(requires_grad=False)
    return Probe(model.eval(), base.load_tokenizer())


def _first(rows: Sequence[Row], most: int) -> Iterator[Row]:
    left = most
    for row in rows:
        if left < 2:
            return
        yield Row(row.ids[:left], row.labels[:left], (min(left, len(row.ids)),))
        left -= len(row.ids)


def _add(
    A: Tensor,
    B: Tensor,
    scale: float,
    factors: Tensor | None,
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    output: Tensor,
) -> Tensor:
    update = scale * (inputs[0].float() @ A.to(output.device).T @ B.to(output.device).T)
    if factors is None:
        return output + update.to(output.dtype)
    bias: Tensor | float = 0.0 if module.bias is None else module.bias  # type: ignore[assignment]
    return (factors * (output.float() - bias + update) + bias).to(output.dtype)
