"""Conversations as text: through the base's chat template, or through a plain one where the base has none.

The fallback looks like this, with the tokenizer's end of text after each answer:

    User: What is two and two?

    Assistant: Four.<|endoftext|>

    User: And three and three?

    Assistant:
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import jinja2

from moehub.errors import DataError


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    """`user`, `assistant`, `system`, or whatever else the base's chat template knows."""
    content: str


Prompt: TypeAlias = str | tuple[Message, ...]
"""A text that is gone on from as it stands, or turns that go through the chat template."""
FALLBACK_TEMPLATE = (
    "{{ opening }}{% for message in messages %}"
    "{% if not loop.first %}{{ '\n\n' }}{% endif %}"
    "{% if message['role'] not in ('system', 'user', 'assistant') %}"
    "{{ raise_exception('the roles are system, user and assistant') }}{% endif %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)
"""The chat template of a base that brings none; `opening` is its beginning-of-text mark if it sets one."""


def render(tokenizer: Any, messages: Sequence[Message], *, answer: bool = False, **variables: Any) -> str:
    """Return a conversation as text, special tokens included; with `answer`, the assistant's turn is opened.

    Tokenise it with `add_special_tokens=False`. `variables` are for the template, as `enable_thinking`; one that does
    not know them does not look at them.

    Raises:
        DataError: the chat template refuses the conversation.
    """
    turns = [{"role": message.role, "content": message.content} for message in messages]
    template = None if tokenizer.chat_template else FALLBACK_TEMPLATE
    options = {} if tokenizer.chat_template else {"opening": tokenizer.decode(opening(tokenizer))}
    try:
        text: str = tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, add_generation_prompt=answer, **options, **variables
        )
    except jinja2.TemplateError as error:
        raise DataError(f"the base's chat template refuses it ({error})") from error
    return text


def opening(tokenizer: Any) -> list[int]:
    """Return the ids that the tokenizer puts before every text: the beginning-of-text mark, or none."""
    ids = tokenizer("")["input_ids"]
    return [int(ids[0])] if ids and ids[0] == tokenizer.bos_token_id else []
