from pathlib import Path
from typing import Any

import pytest

from moehub import base as bases
from moehub import chat
from moehub.chat import Message
from moehub.errors import DataError
from moehub.experts import answers
from moehub.experts.examples import Conversation

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Shows thoughts in the last answer alone, as Qwen 3 does.
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and not loop.last %}{{ m['content'].split('</think>')[-1].strip() }}"
    "{% else %}{{ m['content'] }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Trims, has no mark between the user's end and the answer but its own, and no generation prompt.
BRACKETS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }}</s>{% endif %}{% endfor %}"
)
# Opens the assistant's turn with something that the answers of a conversation do not have.
OPENS_THOUGHT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant><think>\n{% endif %}"
)
REFUSING = "{{ raise_exception('conversations must alternate') }}"
HIDING = "{% for m in messages %}<{{ m['role'] }}>{% endfor %}"
TURNS = (
    Message("user", "yes"),
    Message("assistant", "yes"),
    Message("user", "And then?"),
    Message("assistant", "end"),
)


@pytest.fixture
def tokenizer(base_folder: Path) -> Any:
    return bases.find(str(base_folder)).load_tokenizer()


def _learned(tokenizer: Any, *messages: Message) -> list[str]:
    parts = answers.segments(tokenizer, Conversation(messages))
    assert "".join(text for text, _ in parts) == chat.render(
        tokenizer, messages[: 1 + max(index for index, one in enumerate(messages) if one.role == "assistant")]
    )
    return [text for text, learned in parts if learned]


def test_fallback_is_as_documented(tokenizer: Any) -> None:
    """Without a template, a conversation reads User:, Assistant:, with the end of text after each answer."""
    assert chat.render(tokenizer, (Message("system", "Be brief."), *TURNS[:3]), answer=True) == (
        "System: Be brief.\n\nUser: yes\n\nAssistant: yes<|end|>\n\nUser: And then?\n\nAssistant:"
    )


def test_fallback_opens_the_answer_as_the_conversation_goes_on(tokenizer: Any) -> None:
    """What is asked at inference is how the training text began."""
    asked = chat.render(tokenizer, TURNS[:1], answer=True)
    assert chat.render(tokenizer, TURNS[:2]).startswith(asked)


def test_fallback_refuses_unknown_roles(tokenizer: Any) -> None:
    """A role that it has no word for is an error, not silence."""
    with pytest.raises(DataError, match="the roles are system, user and assistant"):
        chat.render(tokenizer, (Message("tool", "42"),))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, [" yes<|end|>", " end<|end|>"]),
        (CHATML, ["yes<|im_end|>\n", "end<|im_end|>\n"]),
        (THINKING, ["yes<|im_end|>\n", "end<|im_end|>\n"]),
        (BRACKETS, [" yes</s>", " end</s>"]),
        (OPENS_THOUGHT, ["yes<end>", "end<end>"]),
    ],
)
def test_every_answer_is_learned_and_nothing_else(tokenizer: Any, template: str | None, expected: list[str]) -> None:
    """Answers with their end marks are found, also where question and answer are one word, or end like a mark."""
    tokenizer.chat_template = template
    assert _learned(tokenizer, *TURNS) == expected


def test_answers_whose_thoughts_the_template_drops_are_found(tokenizer: Any) -> None:
    """Earlier answers are learned as the template shows them, the last one with its thoughts."""
    tokenizer.chat_template = THINKING
    thoughtful = [
        Message(one.role, f"<think>hm</think>\n\n{one.content}" if one.role == "assistant" else one.content)
        for one in TURNS
    ]
    assert _learned(tokenizer, *thoughtful) == ["yes<|im_end|>\n", "<think>hm</think>\n\nend<|im_end|>\n"]


def test_what_follows_the_last_answer_is_left_out(tokenizer: Any) -> None:
    """A question that nobody answered teaches nothing."""
    assert _learned(tokenizer, *TURNS[:3]) == [" yes<|end|>"]


def test_answer_before_any_question_is_learned(tokenizer: Any) -> None:
    """A greeting by the assistant is an answer too."""
    tokenizer.chat_template = CHATML
    assert _learned(tokenizer, Message("assistant", "Hello!")) == ["Hello!<|im_end|>\n"]


@pytest.mark.parametrize(
    ("template", "message"), [(REFUSING, "conversations must alternate"), (HIDING, "does not show an answer")]
)
def test_template_that_cannot_be_used_is_named_with_the_conversation(
    tokenizer: Any, template: str, message: str
) -> None:
    """The sentence says which conversation and why."""
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=rf"a\.jsonl, line 3: .*{message}"):
        answers.segments(tokenizer, Conversation(TURNS, origin="a.jsonl, line 3"))


def test_beginning_of_text_is_where_the_tokenizer_sets_one(tokenizer: Any) -> None:
    """The opening is the tokenizer's own mark, and the fallback template begins with it."""
    from tokenizers.processors import TemplateProcessing

    before = chat.opening(tokenizer)
    tokenizer.bos_token = "<pad>"  # noqa: S105 (no password)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    assert (before, chat.opening(tokenizer)) == ([], [0])
    assert chat.render(tokenizer, TURNS[:1]) == "<pad>User: yes"
