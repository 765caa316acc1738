"""Prompts as files hold them."""

import hashlib
import json

from moehub.chat import Prompt


def turns(prompt: Prompt) -> str | list[dict[str, str]]:
    """Return a prompt as JSON has it: a text, or a list of messages."""
    if isinstance(prompt, str):
        return prompt
    return [{"role": message.role, "content": message.content} for message in prompt]


def digest(prompt: Prompt, *more: str) -> str:
    """Return the sha256 of a prompt, and of what else is told apart, in hex."""
    return hashlib.sha256(json.dumps([turns(prompt), *more]).encode()).hexdigest()
