"""Prompts and answers as token ids, apart from each other: what the stages that judge answers are fed with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from moehub import chat
from moehub.chat import Message, Prompt
from moehub.errors import DataError
from moehub.experts.examples import Completion, Conversation, Example
from moehub.experts.packing import IGNORED, Row
from moehub.experts.settings import TrainConfig
from moehub.experts.tokens import Tokens, encode


@dataclass(frozen=True)
class Asked:
    """One answer behind its prompt."""

    tokens: Tokens
    """Of both; what is learned of it is the answer."""
    begin: int
    """Where the answer begins."""

    @property
    def prompt(self) -> list[int]:
        """The prompt's ids."""
        return list(map(int, self.tokens.ids[: self.begin]))

    @property
    def answer(self) -> list[int]:
        """The answer's ids, its end included."""
        return list(map(int, self.tokens.ids[self.begin :]))

    def row(self) -> Row:
        """Return it as a row of its own, of which the answer has a loss."""
        labels = torch.full_like(self.tokens.ids, IGNORED)
        labels[self.begin :] = self.tokens.ids[self.begin :]
        return Row(self.tokens.ids, labels, (len(self.tokens.ids),))


def answers(tokenizer: Any, asked: Sequence[tuple[Prompt, str, str]]) -> list[Asked]:
    """Return each prompt with its answer as token ids.

    Args:
        tokenizer: the base's.
        asked: (prompt, answer, origin).

    Raises:
        DataError: the chat template refuses a conversation.
    """
    examples = [_example(prompt, answer, origin) for prompt, answer, origin in asked]
    return [_asked(one) for one in encode(tokenizer, examples)]


def prompts(tokenizer: Any, asked: Sequence[Prompt]) -> list[list[int]]:
    """Return each prompt's ids, up to where the model is to answer."""
    opening = chat.opening(tokenizer)
    texts = [one if isinstance(one, str) else chat.render(tokenizer, one, answer=True) for one in asked]
    ids = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return [[*([] if isinstance(one, tuple) else opening), *each] for one, each in zip(asked, ids, strict=True)]


def fitting(groups: Sequence[Sequence[Asked]], context: int, config: TrainConfig) -> tuple[list[int], list[str]]:
    """Return which groups fit into the context as a whole, and the origins of those that do not.

    Raises:
        DataError: `too_long` is `error` and a group does not fit, or none does.
    """
    long = [group for group in groups if any(len(one.tokens.ids) > context for one in group)]
    if long and config.too_long == "error":
        most = max(len(one.tokens.ids) for group in long for one in group)
        raise DataError(
            f"{long[0][0].tokens.origin} is longer than the context of {context} tokens ({len(long)} of {len(groups)} "
            f"examples are, the longest has {most}): --set context_length={most} if the base takes it, "
            "--set too_long=skip, or shorten them"
        )
    kept = [index for index, group in enumerate(groups) if all(len(one.tokens.ids) <= context for one in group)]
    return kept, [group[0].tokens.origin for group in long]


def _example(prompt: Prompt, answer: str, origin: str) -> Example:
    if isinstance(prompt, str):
        return Completion(prompt, answer, origin)
    return Conversation((*prompt, Message("assistant", answer)), origin)


def _asked(tokens: Tokens) -> Asked:
    """Cut an example where its last learned stretch begins."""
    learned: Tensor = tokens.learned
    places = (~learned).nonzero()[:, 0]
    end = int(learned.nonzero()[-1]) + 1
    before = places[places < end]
    begin = int(before[-1]) + 1 if len(before) else 0
    cut = Tokens(tokens.ids[:end], tokens.learned[:end], tokens.divisible, tokens.closed, tokens.origin)
    return Asked(cut, begin)
