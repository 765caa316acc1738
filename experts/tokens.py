"""Examples as token ids, each with whether it is learned: what the model is shown, to the token.

A document begins as the tokenizer begins a text (its beginning-of-text mark, if it sets one) and ends with
the end of text, which is learned. A conversation ends with it too, unless its template already did. The parts
of a prompt and its answer are tokenised one by one, as they are when somebody asks and the model answers.

Shapes: T tokens of one example.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from moehub import chat
from moehub.errors import DataError, listed
from moehub.experts import answers
from moehub.experts.examples import Completion, Conversation, Example, Text

_MOST_FAULTS = 10


@dataclass(frozen=True)
class Tokens:
    """One example as token ids."""

    ids: Tensor
    """int64 [T]."""
    learned: Tensor
    """bool [T]: whether the model learns to say this token here."""
    divisible: bool
    """Whether it may be cut into windows: a document may, an answer may not."""
    closed: bool
    """Whether the last id is an end of text that stands in no template: learned, but never read back."""
    origin: str

    @property
    def seen(self) -> Tensor:
        """The ids that the model reads when it is used on this text: int64 [T or T - 1]."""
        return self.ids[:-1] if self.closed else self.ids


def encode(tokenizer: Any, examples: Sequence[Example]) -> list[Tokens]:
    """Return each example's tokens.

    Raises:
        DataError: conversations that the chat template refuses; all are counted, the first ten are named.
    """
    parts: list[list[tuple[str, bool]]] = []
    faults: list[str] = []
    for example in examples:
        try:
            parts.append(_parts(tokenizer, example))
        except DataError as error:
            faults.append(str(error))
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        summary = f"{len(faults)} conversation(s) do not fit the base's chat template; correct or remove them:"
        raise DataError(listed(summary, [*faults[:_MOST_FAULTS], *more]))
    texts = [text for example_parts in parts for text, _ in example_parts]
    ids = iter(tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else [])
    opening = chat.opening(tokenizer)
    return [
        _tokens(example, example_parts, ids, opening, tokenizer.eos_token_id)
        for example, example_parts in zip(examples, parts, strict=True)
    ]


def fit(documents: Sequence[Tokens], context: int, *, too_long: str, longest: int) -> tuple[list[Tokens], list[str]]:
    """Return the examples that fit into `context` tokens, and the origins of those that were skipped or cut.

    Documents always fit: they are cut into windows later. For the others `too_long` decides: `error`,
    `skip`, or `cut`, which keeps the beginning and skips what has nothing left to learn.

    Raises:
        DataError: `too_long` is `error` and an example does not fit; `longest` is what the base could take.
    """
    long = [one for one in documents if not one.divisible and len(one.ids) > context]
    if long and too_long == "error":
        first, most = long[0], max(len(one.ids) for one in long)
        cure = f"--set context_length={most}, or " if most <= longest else ""
        raise DataError(
            f"{first.origin} is {len(first.ids)} tokens long, the context is {context} ({len(long)} of "
            f"{len(documents)} examples are too long, the longest has {most}): "
            f"{cure}--set too_long=skip or --set too_long=cut, or shorten them"
        )
    kept = []
    for one in documents:
        fitting = one if one.divisible or len(one.ids) <= context else _cut(one, context)
        if fitting is one or (too_long == "cut" and bool(fitting.learned.any())):
            kept.append(fitting)
    return kept, [one.origin for one in long]


def _cut(one: Tokens, context: int) -> Tokens:
    return replace(one, ids=one.ids[:context], learned=one.learned[:context], closed=False)


def _parts(tokenizer: Any, example: Example) -> list[tuple[str, bool]]:
    match example:
        case Text():
            return [(example.text, True)]
        case Completion():
            return [(example.prompt, False), (example.completion, True)]
        case Conversation():
            return answers.segments(tokenizer, example)


def _tokens(
    example: Example, parts: Sequence[tuple[str, bool]], ids: Iterator[list[int]], opening: list[int], end: int | None
) -> Tokens:
    templated = isinstance(example, Conversation)
    numbers: list[int] = [] if templated else list(opening)
    learned = [not isinstance(example, Completion)] * len(numbers)
    for _, is_learned in parts:
        some = next(ids)
        numbers += some
        learned += [is_learned] * len(some)
    # Templates may put a line break behind their end mark: any end in the last learned stretch will do.
    ended = templated and end in numbers[len(numbers) - _trailing(learned) :]
    closed = end is not None and not ended and (not isinstance(example, Text) or example.ends)
    if closed and end is not None:
        numbers.append(end)
        learned.append(True)
    return Tokens(
        torch.tensor(numbers, dtype=torch.int64),
        torch.tensor(learned, dtype=torch.bool),
        isinstance(example, Text),
        closed,
        example.origin,
    )


def _trailing(learned: Sequence[bool]) -> int:
    return next((count for count, value in enumerate(reversed(learned)) if not value), len(learned))
