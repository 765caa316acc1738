from pathlib import Path
from typing import Any

import pytest
import torch

from moehub import base as bases
from moehub import chat
from moehub.chat import Message
from moehub.errors import DataError
from moehub.experts.examples import Completion, Conversation, Example, Text
from moehub.experts.tokens import Tokens, encode, fit

QUESTION = Conversation((Message("user", "Two and two?"), Message("assistant", "Four.")), origin="a.jsonl, line 1")
END = 1


@pytest.fixture
def tokenizer(base_folder: Path) -> Any:
    return bases.find(str(base_folder)).load_tokenizer()


def _one(tokenizer: Any, example: Example) -> Tokens:
    (tokens,) = encode(tokenizer, [example])
    return tokens


def _learned(tokenizer: Any, tokens: Tokens) -> str:
    return str(tokenizer.decode(tokens.ids[tokens.learned]))


def test_document_is_learned_as_a_whole_with_its_end(tokenizer: Any) -> None:
    """All tokens count, and the end of text is one of them."""
    tokens = _one(tokenizer, Text("the court finds"))
    assert tokens.ids.tolist() == [*tokenizer("the court finds")["input_ids"], END]
    assert bool(tokens.learned.all())


def test_document_that_goes_on_has_no_end(tokenizer: Any) -> None:
    """The first part of a document that was cut for the held-out split does not teach to stop there."""
    tokens = _one(tokenizer, Text("the court", ends=False))
    assert (tokens.ids.tolist(), tokens.closed) == (tokenizer("the court")["input_ids"], False)


def test_completion_is_learned_and_its_prompt_is_not(tokenizer: Any) -> None:
    """Labels cover the completion and the end of text; prompt and completion are tokenised one by one."""
    tokens = _one(tokenizer, Completion("def add", "(a, b)"))
    assert tokens.ids.tolist() == [*tokenizer("def add")["input_ids"], *tokenizer("(a, b)")["input_ids"], END]
    assert _learned(tokenizer, tokens) == "(a, b)<|end|>"


def test_conversation_without_template_ends_once(tokenizer: Any) -> None:
    """The fallback puts the end of text behind the answer: no second one follows."""
    tokens = _one(tokenizer, QUESTION)
    assert tokenizer.decode(tokens.ids) == "User: Two and two?\n\nAssistant: Four.<|end|>"
    assert (_learned(tokenizer, tokens), tokens.closed) == (" Four.<|end|>", False)


def test_conversation_begins_as_the_question_does_at_inference(tokenizer: Any) -> None:
    """The ids before the answer are those of the rendered question."""
    tokens = _one(tokenizer, QUESTION)
    asked = tokenizer(chat.render(tokenizer, QUESTION.messages[:1], answer=True), add_special_tokens=False)
    assert tokens.ids[~tokens.learned].tolist() == asked["input_ids"]


def test_template_without_end_of_text_gets_one(tokenizer: Any) -> None:
    """Where the template has another mark for the end of a turn, the end of text is learned after it."""
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}\n{% endfor %}"
    tokens = _one(tokenizer, QUESTION)
    assert tokenizer.decode(tokens.ids) == "<user>Two and two?\n<assistant>Four.\n<|end|>"
    assert (tokens.ids[-1].item(), tokens.closed, bool(tokens.learned[-1])) == (END, True, True)


def test_end_of_an_earlier_answer_does_not_stand_for_the_last(tokenizer: Any) -> None:
    """Only what stands in the last answer tells that the template ended the text."""
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% if not loop.last %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|end|><assistant>{% endif %}"
    )
    turns = (Message("user", "a"), Message("assistant", "b")) * 2
    assert _one(tokenizer, Conversation(turns)).closed


def test_tokenizer_without_end_of_text_appends_nothing(tokenizer: Any) -> None:
    """Some bases have no such token; their documents just stop."""
    tokenizer.eos_token = None
    tokens = _one(tokenizer, Text("the court"))
    assert (tokens.ids.tolist(), tokens.closed) == (tokenizer("the court")["input_ids"], False)


def test_beginning_of_text_is_set_once(tokenizer: Any) -> None:
    """Documents and prompts begin with the tokenizer's mark; completions inside of a text do not."""
    from tokenizers.processors import TemplateProcessing

    tokenizer.bos_token = "<pad>"  # noqa: S105 (no password)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<pad> $A", special_tokens=[("<pad>", 0)])
    for example in (Text("rent"), Completion("a", "b"), QUESTION):
        ids = _one(tokenizer, example).ids.tolist()
        assert (ids[0], ids.count(0)) == (0, 1)
    assert _one(tokenizer, Text("rent")).seen.tolist() == tokenizer("rent")["input_ids"]


def test_seen_is_what_the_model_reads_at_inference(tokenizer: Any) -> None:
    """The end of text that was put behind a document is not read back; one in a template is."""
    document, conversation = encode(tokenizer, [Text("the court"), QUESTION])
    assert document.seen.tolist() == tokenizer("the court")["input_ids"]
    assert conversation.seen.tolist() == conversation.ids.tolist()


def test_encode_keeps_order_and_origin(tokenizer: Any) -> None:
    """Each example's tokens stand where the example stood."""
    examples: list[Example] = [Text("a", origin="x"), QUESTION, Completion("b", "c", origin="y")]
    assert [tokens.origin for tokens in encode(tokenizer, examples)] == ["x", "a.jsonl, line 1", "y"]
    assert encode(tokenizer, []) == []


def test_conversations_that_do_not_fit_the_template_are_all_named(tokenizer: Any) -> None:
    """Ten are named, and all are counted."""
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    examples = [Conversation(QUESTION.messages, origin=f"line {number}") for number in range(12)]
    with pytest.raises(DataError) as caught:
        encode(tokenizer, [Text("fine"), *examples])
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("12 conversation(s)")
    assert ("line 0" in lines[1], "no system role" in lines[1], lines[-1]) == (True, True, "  - and 2 more")


def _tokens(length: int, *, prompt: int = 0, divisible: bool = False) -> Tokens:
    learned = torch.arange(length) >= prompt
    return Tokens(torch.arange(length), learned, divisible, closed=True, origin=f"of {length}")


def test_fit_keeps_what_fits_and_every_document() -> None:
    """Documents are cut into windows later, so they always fit."""
    documents = [_tokens(8), _tokens(100, divisible=True)]
    assert fit(documents, 8, too_long="error", longest=8) == (documents, [])


@pytest.mark.parametrize(
    ("longest", "cure"),
    [
        (20, "20): --set context_length=20, or --set too_long=skip or"),
        (19, "20): --set too_long=skip or --set too_long=cut"),
    ],
)
def test_fit_refuses_an_answer_beyond_the_context(longest: int, cure: str) -> None:
    """The sentence says which, how long, how many, and only cures that the base allows."""
    with pytest.raises(DataError) as caught:
        fit([_tokens(4), _tokens(9), _tokens(20)], 8, too_long="error", longest=longest)
    message = str(caught.value)
    assert "of 9 is 9 tokens long, the context is 8 (2 of 3 examples are too long, the longest has 20)" in message
    assert (cure in message, "context_length=" in message) == (True, longest == 20)


def test_fit_can_skip() -> None:
    """Skipped examples are named by their origin."""
    short, long = _tokens(4), _tokens(9)
    assert fit([short, long], 8, too_long="skip", longest=8) == ([short], ["of 9"])


def test_fit_can_cut() -> None:
    """The beginning is kept; what has nothing left to learn is skipped."""
    kept, long = fit([_tokens(12, prompt=4), _tokens(12, prompt=10)], 8, too_long="cut", longest=8)
    (cut,) = kept
    assert (cut.ids.tolist(), cut.learned.sum().item(), cut.closed) == (list(range(8)), 4, False)
    assert len(long) == 2
