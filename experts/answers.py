"""Where the answers stand in a conversation that was rendered: what is learned of it.

That is found by rendering, not by parsing templates: an answer begins where the conversation and
"the conversation so far, with the assistant's turn opened" stop agreeing, and it ends after the answer's
text and whatever the template puts behind the last answer (its end-of-turn mark). So it works for every
template that shows the answers literally, those that drop the thoughts of earlier turns included.
"""

from collections.abc import Sequence
from typing import Any

from moehub.chat import Message, render
from moehub.errors import DataError
from moehub.experts.examples import Conversation


def segments(tokenizer: Any, conversation: Conversation) -> list[tuple[str, bool]]:
    """Return the rendered conversation in parts, each with whether it is learned.

    Raises:
        DataError: the template refuses the conversation, or does not show an answer as it is.
    """
    try:
        return _segments(tokenizer, conversation.messages)
    except DataError as error:
        raise DataError(f"{conversation.origin}: {error}") from error


def _segments(tokenizer: Any, messages: Sequence[Message]) -> list[tuple[str, bool]]:
    answers = [index for index, message in enumerate(messages) if message.role == "assistant"]
    messages = messages[: answers[-1] + 1]
    full = render(tokenizer, messages)
    begins = [_begin(tokenizer, full, messages, index) for index in answers]
    mark = full[_end(full, messages[-1], begins[-1], 0) :]
    parts: list[tuple[str, bool]] = []
    done = 0
    for index, begin in zip(answers, begins, strict=True):
        end = _end(full, messages[index], begin, done)
        end += len(mark) if full.startswith(mark, end) else 0
        parts += [(full[done:begin], False), (full[begin:end], True)]
        done = end
    return parts


def _begin(tokenizer: Any, full: str, messages: Sequence[Message], index: int) -> int:
    """Return where the answer `index` begins in the conversation."""
    if index == 0:  # no template renders nothing, so the mark before a greeting can only be passed over
        return max(0, full.find(messages[0].content.strip()))
    opened = render(tokenizer, messages[:index], answer=True)
    pairs = enumerate(zip(full, opened, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(full), len(opened)))


def _end(full: str, answer: Message, begin: int, earliest: int) -> int:
    """Return where the answer's own text ends; it may begin a little before `begin` if it looks like the mark."""
    # Templates show an answer whole, without outer blanks, or without its thoughts.
    shown = (answer.content, answer.content.strip(), answer.content.split("</think>")[-1].strip())
    for start in (begin, earliest):
        for content in shown:
            at = full.find(content, start) if content else -1
            if at >= 0:
                return at + len(content)
    raise DataError("the base's chat template does not show an answer as it is written; use another template")
