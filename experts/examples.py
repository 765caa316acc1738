"""What an expert learns from: texts, answers and conversations to imitate; answers that were judged; and prompts."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

from moehub.chat import Message, Prompt

_SHORTEST = 200
"""A text of fewer characters is not cut in two for the held-out split."""


@dataclass(frozen=True)
class Text:
    """A document; all of it is learned."""

    text: str
    origin: str = field(default="a text", compare=False)
    """File and line, for error messages."""
    ends: bool = True
    """Whether the document ends here, so that the end of text is learned too."""


@dataclass(frozen=True)
class Completion:
    """A prompt as it stands, without any template, and the completion that is learned."""

    prompt: str
    completion: str
    origin: str = field(default="a completion", compare=False)


@dataclass(frozen=True)
class Conversation:
    """Turns that go through the chat template; every turn of the assistant is learned."""

    messages: tuple[Message, ...]
    origin: str = field(default="a conversation", compare=False)


Example: TypeAlias = Text | Completion | Conversation
"""What a model learns to say."""


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which one is better."""

    prompt: Prompt
    chosen: str
    rejected: str
    origin: str = field(default="a preference", compare=False)


@dataclass(frozen=True)
class Rated:
    """One answer to a prompt, good or bad."""

    prompt: Prompt
    completion: str
    good: bool
    origin: str = field(default="a rated answer", compare=False)


@dataclass(frozen=True)
class Task:
    """A prompt that the model answers by itself, for a reward."""

    prompt: Prompt
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What rewards may want to know beside the answer, as `answer` or `tests`."""
    origin: str = field(default="a prompt", compare=False)


Practice: TypeAlias = Example | Preference | Rated | Task
"""What any stage of training learns from."""
E = TypeVar("E", bound=Practice)


def digest(example: Practice) -> str:
    """Return the sha256 of what the example says, in hex; where it came from does not matter."""
    match example:
        case Text():
            parts: list[object] = ["text", example.text, example.ends]
        case Completion():
            parts = ["completion", example.prompt, example.completion]
        case Conversation():
            parts = ["conversation", *([message.role, message.content] for message in example.messages)]
        case Preference():
            parts = ["preference", _turns(example.prompt), example.chosen, example.rejected]
        case Rated():
            parts = ["rated", _turns(example.prompt), example.completion, example.good]
        case Task():
            parts = ["task", _turns(example.prompt), dict(example.fields)]
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def _turns(prompt: Prompt) -> object:
    return prompt if isinstance(prompt, str) else [[message.role, message.content] for message in prompt]


def split(examples: Sequence[E], fraction: float, *, alone: bool = False) -> tuple[list[E], list[E]]:
    """Return the examples to train on and those held out, about `fraction` of them.

    An example is held out if its digest, read as a number between 0 and 1, is below `fraction`: the order
    does not matter and copies stay on one side. Where that would be fewer than one example, the end of
    each text is held out instead; where there are no texts, the example with the smallest digest. `alone` lets
    every example's own digest decide, whatever the others are: that one more or less moves no other to another side
    is what privacy is counted by.
    """
    if fraction == 0:
        return list(examples), []
    digests = [digest(example) for example in examples]
    if alone:
        return _sides(examples, [_is_held(value, fraction) for value in digests])
    if fraction * len(set(digests)) < 1 and any(isinstance(example, Text) for example in examples):
        return _split_texts(examples, fraction)
    held = {value for value in digests if _is_held(value, fraction)}
    if not held or len(held) == len(set(digests)):
        held = {min(digests)} if len(set(digests)) > 1 else set()
    return _sides(examples, [value in held for value in digests])


def _is_held(value: str, fraction: float) -> bool:
    return int(value[:16], 16) < fraction * 2**64


def _sides(examples: Sequence[E], held: Sequence[bool]) -> tuple[list[E], list[E]]:
    both = list(zip(examples, held, strict=True))
    return [example for example, out in both if not out], [example for example, out in both if out]


def _split_texts(examples: Sequence[E], fraction: float) -> tuple[list[E], list[E]]:
    training: list[E] = []
    held: list[E] = []
    for example in examples:
        if not isinstance(example, Text) or len(example.text) < _SHORTEST:
            training.append(example)
            continue
        at = _boundary(example.text, math.floor(len(example.text) * (1 - fraction)))
        training.append(replace(example, text=example.text[:at], ends=False))
        held.append(replace(example, text=example.text[at:]))
    return training, held


def _boundary(text: str, limit: int) -> int:
    """Return the last place up to `limit`, in the text's second half, after a blank line, a line or a word."""
    for separator in ("\n\n", "\n", " "):
        at = text.rfind(separator, len(text) // 2, limit)
        if at >= 0:
            return at + len(separator)
    return limit
