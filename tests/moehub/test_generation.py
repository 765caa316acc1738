from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from tokenizers import processors

from moehub import chat
from moehub.answering.answerer import Sampling
from moehub.chat import Message
from moehub.errors import DataError
from moehub.evaluation import TracedToken
from moehub.generation import encode_prompt, generate
from moehub.models import Opened, open_model
from tests.moehub.conftest import CODE, LAW, Small
from tests.moehub.test_evaluation import EMOJI, TOKENIZERS, byte_level


class Scripted:
    """Writes what it was told to, one token at a time, and keeps how it was asked."""

    def __init__(self, ids: Sequence[int], *, after_each: Callable[[], None] = lambda: None) -> None:
        self.ids, self.after_each = list(ids), after_each
        self.asked: dict[str, Any] = {}

    def get_input_embeddings(self) -> torch.nn.Module:
        return torch.nn.Embedding(1, 1)

    def generate(self, *, input_ids: torch.Tensor, streamer: Any, **asked: Any) -> torch.Tensor:
        self.asked = asked
        streamer.put(input_ids)
        for number in self.ids:
            streamer.put(torch.tensor([number]))
            self.after_each()
        streamer.end()
        return torch.cat([input_ids, torch.tensor([self.ids])], 1)


@pytest.fixture(scope="module")
def moe(small: Small) -> Opened:
    """The MoE, opened."""
    return open_model(str(small.moe))


def streamed(opened: Opened, prompt: torch.Tensor, sampling: Sampling, *, trace: bool = False) -> list[TracedToken]:
    shown: list[TracedToken] = []
    generate(opened, prompt, sampling, on_token=shown.append, trace=trace)
    return shown


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_streamed_text_is_the_decoded_text_and_no_character_is_torn(kind: str) -> None:
    """Characters of several tokens are held until they are whole; together the pieces are the answer."""
    tokenizer = TOKENIZERS[kind]
    prompt, answer = tokenizer("the cat")["input_ids"], tokenizer(EMOJI)["input_ids"]
    tokenizer.eos_token_id = 0
    opened = Opened("base", "scripted", Scripted(answer), tokenizer)
    shown = [token.text for token in streamed(opened, torch.tensor([prompt]), Sampling())]
    assert "".join(shown).strip() == EMOJI
    assert not any("\ufffd" in piece for piece in shown)


def test_a_text_that_stops_inside_a_character_shows_it_at_the_end() -> None:
    """What waited for the rest of a character is shown when no more comes, as the tokenizer shows it."""
    tokenizer = TOKENIZERS["byte level"]
    answer = tokenizer("a 🦊")["input_ids"][:-1]
    tokenizer.eos_token_id = 0
    opened = Opened("base", "scripted", Scripted(answer), tokenizer)
    shown = [token.text for token in streamed(opened, torch.tensor([tokenizer("the")["input_ids"]]), Sampling())]
    assert "".join(shown) == tokenizer.decode(answer) == "a \ufffd"


def test_tokens_are_shown_as_they_come() -> None:
    """Each whole character is shown before the next token is written: it is a stream."""
    tokenizer = TOKENIZERS["byte level"]
    answer = tokenizer("abc🦊d")["input_ids"]
    tokenizer.eos_token_id = 0
    shown: list[str] = []
    seen: list[str] = []
    opened = Opened("base", "scripted", Scripted(answer, after_each=lambda: seen.append("".join(shown))), tokenizer)
    prompt = torch.tensor([tokenizer("the")["input_ids"]])
    generate(opened, prompt, Sampling(), on_token=lambda token: shown.append(token.text), trace=False)
    whole = [tokenizer.decode(answer[: number + 1]).rstrip("\ufffd") for number in range(len(answer))]
    assert seen == whole


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), {"max_new_tokens": 256, "do_sample": False}),
        (
            Sampling(5, temperature=0.7, top_p=0.9),
            {"max_new_tokens": 5, "do_sample": True, "temperature": 0.7, "top_p": 0.9},
        ),
    ],
)
def test_sampling_is_what_generate_is_asked_for(sampling: Sampling, expected: dict[str, object]) -> None:
    """Temperature 0 asks for the most probable token and names no temperature, which transformers warns about."""
    tokenizer = TOKENIZERS["byte level"]
    tokenizer.eos_token_id = 0
    model = Scripted([5])
    streamed(Opened("base", "scripted", model, tokenizer), torch.tensor([[7, 8]]), sampling)
    assert {key: model.asked[key] for key in expected} == expected
    assert {"temperature", "top_p"} & model.asked.keys() == {"temperature", "top_p"} & expected.keys()
    assert model.asked["attention_mask"].tolist() == [[1, 1]]


def test_a_narrow_top_p_is_greedy(moe: Opened) -> None:
    """Drawing only from the most probable token is taking it: the options arrive at the model."""
    prompt = encode_prompt(moe, LAW)
    options: dict[str, Any] = {"on_token": lambda _: None, "trace": False}
    greedy = generate(moe, prompt, Sampling(12), **options)
    assert generate(moe, prompt, Sampling(12, temperature=2.0, top_p=1e-6, seed=3), **options) == greedy
    assert generate(moe, prompt, Sampling(12, temperature=2.0, seed=3), **options) != greedy


def test_a_trace_shows_prompt_and_answer_with_their_experts(moe: Opened) -> None:
    """Every token of prompt and answer is shown once, with the expert that a trace of the whole text names."""
    prompt = encode_prompt(moe, LAW + CODE)
    shown: list[TracedToken] = []
    written = generate(moe, prompt, Sampling(10), on_token=shown.append, trace=True)
    ids = torch.tensor([prompt[0].tolist() + written])
    names = [*moe.model.names, "null"]
    assert len(shown) == ids.shape[1]
    assert [token.expert for token in shown] == [names[best] for best in moe.model.trace(ids)[0].argmax(-1).tolist()]
    assert "".join(token.text for token in shown) == moe.tokenizer.decode(ids[0])


def test_a_trace_changes_nothing_that_is_written(moe: Opened) -> None:
    """Looking at the routing while generating does not disturb it."""
    prompt = encode_prompt(moe, LAW + CODE)
    written = [generate(moe, prompt, Sampling(10), on_token=lambda _: None, trace=looking) for looking in (False, True)]
    assert written[0] == written[1]


def test_a_question_is_the_first_turn_of_a_conversation(small: Small) -> None:
    """With `as_chat` the prompt goes through the form the experts were trained with, and asks for an answer."""
    base = open_model(str(small.base))
    ids = encode_prompt(base, "add?", as_chat=True)[0].tolist()
    rendered = chat.render(base.tokenizer, [Message("user", "add?")], answer=True)
    assert base.tokenizer.decode(ids) == rendered
    assert "add?" in rendered
    assert rendered != "add?"


def test_a_beginning_of_text_stands_before_a_prompt_once() -> None:
    """A tokenizer that opens texts with a mark opens a plain prompt; a conversation has its own opening."""
    tokenizer = byte_level()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", 1)]
    )
    opened = Opened("base", "opening", None, tokenizer)
    assert encode_prompt(opened, LAW)[0, 0] == 1
    assert encode_prompt(opened, LAW)[0, 1] != 1
    assert encode_prompt(opened, LAW, as_chat=True)[0, 0] != 1


def test_nothing_to_go_on_from_is_refused(small: Small) -> None:
    """An empty prompt has no tokens."""
    with pytest.raises(DataError, match="the prompt is empty"):
        encode_prompt(open_model(str(small.base)), "")
