"""Examples made ready: split, tokenised, fitted into the context."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from moehub.errors import ConfigError, DataError
from moehub.experts.examples import Example, Text, digest, split
from moehub.experts.packing import Row, pack
from moehub.experts.settings import TrainConfig
from moehub.experts.tokens import Tokens, encode, fit

_DEFAULT_CONTEXT = 1024


@dataclass(frozen=True)
class Material:
    """What one training learns from and is measured on."""

    documents: list[Tokens]
    """The training split; router statistics count these."""
    held_out: list[Tokens]
    """Never trained on, never counted."""
    left_out: list[str]
    """Origins of the examples that were longer than the context, skipped or cut."""
    context_length: int
    """Tokens in a row."""
    kind: str
    """`pretrain` where all examples are documents, else `sft`."""

    def rows(self, *, join: bool = True) -> tuple[list[Row], list[Row]]:
        """Return the rows to train on and the rows held out; `join` lets examples share a row."""
        return pack(self.documents, self.context_length, join=join), pack(self.held_out, self.context_length, join=join)


def context_of(config: TrainConfig, longest: int) -> int:
    """Return the most tokens that the model reads at once.

    Raises:
        ConfigError: it is more than the base takes.
    """
    context = config.context_length or min(longest, _DEFAULT_CONTEXT)
    if context > longest:
        raise ConfigError(f"context_length = {context}, but the base takes at most {longest} tokens: set it to that")
    return context


def prepare(tokenizer: Any, examples: Sequence[Example], config: TrainConfig, *, longest: int) -> Material:
    """Return the material of a training; `longest` is the base's own context in tokens.

    Raises:
        ConfigError: `context_length` is more than the base takes.
        DataError: there is nothing to learn, an example does not fit, or the chat template refuses one.
    """
    context = context_of(config, longest)
    training, held = split(examples, config.holdout, alone=config.private > 0)
    held = sorted(held, key=digest)
    every = encode(tokenizer, [*training, *held])
    _, long = fit(every, context, too_long=config.too_long, longest=longest)
    documents, _ = fit(every[: len(training)], context, too_long=config.too_long, longest=longest)
    measured, _ = fit(every[len(training) :], context, too_long=config.too_long, longest=longest)
    if not any(len(one.ids) > 1 and bool(one.learned[1:].any()) for one in documents):
        raise DataError(
            f"there is nothing to learn in {len(examples)} example(s): {len(long)} of them are longer than the "
            f"context of {context} tokens and the others hold less than two tokens; "
            "give more text, or set a larger context_length"
        )
    kind = "pretrain" if all(isinstance(example, Text) for example in examples) else "sft"
    return Material(documents, _at_most(measured, config.holdout_tokens), long, context, kind)


def _at_most(documents: Sequence[Tokens], limit: int) -> list[Tokens]:
    """Return the first documents that hold `limit` tokens together; the last one is cut if that may be done."""
    kept: list[Tokens] = []
    for one in documents:
        if limit < 2:
            break
        if len(one.ids) > limit and one.divisible:
            kept.append(replace(one, ids=one.ids[:limit], learned=one.learned[:limit], closed=False))
            break
        kept.append(one)
        limit -= len(one.ids)
    return kept
