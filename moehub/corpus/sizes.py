"""How many tokens a record makes a model read at once: by a base's tokenizer, or by an estimate."""

from typing import Any

from moehub import chat
from moehub.chat import Message, Prompt
from moehub.corpus.items import CHARACTERS_OF_A_TOKEN, Item
from moehub.experts.examples import Completion, Conversation, Practice, Preference, Rated, Task, Text


def tokens(tokenizer: Any, item: Item) -> int:
    """Return the tokens of the longest text that an item makes of its prompt and an answer; None estimates.

    Raises:
        DataError: the base's chat template refuses it.
    """
    return max(_size(tokenizer, prompt, answer) for one in item.says for prompt, answer in _texts(one))


def _texts(one: Practice) -> list[tuple[Prompt, str | None]]:
    """Return prompts and answers; what has no answer is whole."""
    match one:
        case Text():
            return [(one.text, None)]
        case Completion():
            return [(one.prompt, one.completion)]
        case Conversation():
            return [(one.messages, None)]
        case Preference():
            return [(one.prompt, one.chosen), (one.prompt, one.rejected)]
        case Rated():
            return [(one.prompt, one.completion)]
        case Task():
            return [(one.prompt, None)]


def _size(tokenizer: Any, prompt: Prompt, answer: str | None) -> int:
    if tokenizer is None:
        said = [prompt] if isinstance(prompt, str) else [turn.content for turn in prompt]
        return -(-sum(map(len, [*said, answer or ""])) // CHARACTERS_OF_A_TOKEN)
    if isinstance(prompt, str):
        from moehub.experts import tokens as encoding

        example = Text(prompt) if answer is None else Completion(prompt, answer)
        return len(encoding.encode(tokenizer, [example])[0].ids)
    turns = prompt if answer is None else (*prompt, Message("assistant", answer))
    rendered = chat.render(tokenizer, turns, answer=turns[-1].role != "assistant")
    return len(tokenizer(rendered, add_special_tokens=False, verbose=False)["input_ids"])
