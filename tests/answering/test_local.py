"""A model that is loaded here answers many prompts as it answers one."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from moehub import chat
from moehub.answering.answerer import Answerer, Sampling
from moehub.answering.local import Local
from moehub.answering.yes_no import YesNo, find
from moehub.chat import Message
from moehub.errors import AnsweringError, ConfigError, DataError
from moehub.models import Opened, open_model
from tests.builders import tiny_base
from tests.moehub.conftest import Small, run, small

__all__ = ["run", "small"]

PROMPTS = (
    "the court finds",
    "a",
    (Message("user", "What is 12 + 30?"),),
    "def add(a, b): return a + b. def add(a, b): ret",
    (Message("system", "Be brief."), Message("user", "the lessee?")),
)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    """A base whose answers differ in length."""
    return open_model(str(tiny_base(tmp_path_factory.mktemp("local") / "base")))


def local(opened: Opened, **options: Any) -> Local:
    return Local(opened.model, opened.tokenizer, opened.name, **options)


@pytest.fixture(params=["base", "law", "moe"])
def any_model(request: pytest.FixtureRequest, small: Small) -> Opened:
    """A base, an expert and a MoE."""
    return open_model(str(getattr(small, request.param)), base=str(small.base))


def test_a_batch_is_answered_as_its_prompts_are_one_by_one(any_model: Opened) -> None:
    """Prompts of different lengths, texts and conversations: texts, tokens and probabilities are the same."""
    together: Answerer = local(any_model)
    sampling = Sampling(max_new_tokens=12)
    alone = [one for prompt in PROMPTS for one in local(any_model).answer([prompt], sampling)]
    assert together.answer(PROMPTS, sampling) == alone
    alone_yes = [one for prompt in PROMPTS for one in local(any_model).yes_probability([prompt])]
    assert together.yes_probability(PROMPTS) == pytest.approx(alone_yes, abs=1e-5)


@pytest.mark.parametrize("tokens", [1, 60, 10_000])
def test_the_size_of_a_batch_changes_nothing(opened: Opened, tokens: int) -> None:
    """One prompt at a time, few, or all at once."""
    sampling = Sampling(max_new_tokens=8)
    expected = local(opened, batch_tokens=8192).answer(PROMPTS, sampling)
    assert local(opened, batch_tokens=tokens).answer(PROMPTS, sampling) == expected


def test_a_greedy_answer_is_what_the_model_says_token_by_token(opened: Opened) -> None:
    """The plain twin: the most probable token after each forward of everything so far."""
    ids = opened.tokenizer("the court")["input_ids"]
    said: list[int] = []
    for _ in range(6):
        with torch.inference_mode():
            said.append(int(opened.model(torch.tensor([ids + said])).logits[0, -1].argmax()))
    answer = local(opened).answer(["the court"], Sampling(max_new_tokens=6))[0]
    assert answer.text == opened.tokenizer.decode(said)
    assert (answer.prompt_tokens, answer.completion_tokens) == (len(ids), 6)


class Scripted:
    """Stands in for a base that writes given ids, whatever it is asked."""

    def __init__(self, opened: Opened, rows: Sequence[Sequence[int]]) -> None:
        self.config, self.generation_config = opened.model.config, opened.model.generation_config
        self.rows = rows

    def get_input_embeddings(self) -> torch.nn.Module:
        return torch.nn.Embedding(1, 1)

    def generate(self, *, input_ids: torch.Tensor, **_: Any) -> Any:
        class Output:
            sequences = torch.cat([input_ids, torch.tensor(self.rows)], 1)

        return Output


def test_an_answer_ends_with_the_text(opened: Opened) -> None:
    """What stands behind the mark at the end is padding, and neither is part of the answer."""
    said, end = opened.tokenizer("rent")["input_ids"], opened.tokenizer.eos_token_id
    scripted = Scripted(opened, [[*said, end, 0, 0]])
    answer = Local(scripted, opened.tokenizer, "it").answer(["pay"])[0]
    assert (answer.text, answer.completion_tokens) == ("rent", len(said) + 1)


def test_an_answer_ends_where_the_template_ends_a_turn(tmp_path: Path) -> None:
    """A base's own settings may not name the mark that its chat template puts behind answers."""
    opened = open_model(str(tiny_base(tmp_path / "base")))
    opened.tokenizer.add_special_tokens({"additional_special_tokens": ["<|turn|>"]})
    opened.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}<|turn|>\n{% endfor %}"
    mark = opened.tokenizer.convert_tokens_to_ids("<|turn|>")
    said = opened.tokenizer("rent")["input_ids"]
    scripted = Scripted(opened, [[*said, mark, *said]])
    answer = Local(scripted, opened.tokenizer, "it").answer([(Message("user", "pay"),)])[0]
    assert answer.text == "rent"


def test_a_seed_makes_sampling_repeatable_and_leaves_others_alone(opened: Opened) -> None:
    """Equal seeds give equal answers, and the generator of the caller goes on where it was."""
    sampling = Sampling(max_new_tokens=16, temperature=1.5, seed=7)
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = local(opened).answer(PROMPTS, sampling)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert local(opened).answer(PROMPTS, sampling) == first
    other = local(opened).answer(PROMPTS, Sampling(max_new_tokens=16, temperature=1.5, seed=8))
    assert other != first


def test_what_the_base_says_about_sampling_decides_nothing(tmp_path: Path) -> None:
    """A base may be published with a penalty or a temperature of its own."""
    opened = open_model(str(tiny_base(tmp_path / "base")))
    expected = local(opened).answer(["the court"], Sampling(max_new_tokens=12))
    opened.model.generation_config.repetition_penalty = 50.0
    opened.model.generation_config.do_sample = True
    opened.model.generation_config.temperature = 3.0
    assert local(opened).answer(["the court"], Sampling(max_new_tokens=12)) == expected


def test_yes_is_weighed_against_no_by_the_logits(opened: Opened) -> None:
    """p(yes) / (p(yes) + p(no)) over the tokens that tell them apart, computed from one forward."""
    question = (Message("user", "Is the rent due?"),)
    text = chat.render(opened.tokenizer, question, answer=True)
    words = find(opened.tokenizer, text)
    ids = opened.tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        probabilities = opened.model(ids).logits[0, -1].double().softmax(0)
    yes, no = (float(probabilities[list(one)].sum()) for one in (words.yes, words.no))
    assert local(opened).yes_probability([question])[0] == pytest.approx(yes / (yes + no), abs=1e-6)


class Cut:
    """A tokenizer that knows some words whole, and else cuts text into characters."""

    def __init__(self, *words: str) -> None:
        self.words = sorted(words, key=len, reverse=True)

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        ids = []
        while text:
            word = next((one for one in self.words if text.startswith(one)), text[0])
            ids.append(1000 + self.words.index(word) if word in self.words else ord(word))
            text = text[len(word) :]
        return {"input_ids": ids}

    def id(self, word: str) -> int:
        return self(word)["input_ids"][0]


def test_a_blank_that_begins_both_words_says_nothing() -> None:
    """` yes` and ` no` begin with the same token, so only the words without a blank are kept."""
    tokenizer = Cut("yes", "no")
    assert find(tokenizer, "Assistant:") == YesNo((tokenizer.id("yes"),), (tokenizer.id("no"),))


def test_words_that_are_one_token_go_before_their_first_letters() -> None:
    """` Yes` and ` No` whole; the letter Y, which begins much else, is left out."""
    tokenizer = Cut(" Yes", " No")
    assert find(tokenizer, "Assistant:") == YesNo((tokenizer.id(" Yes"),), (tokenizer.id(" No"),))


def test_words_whose_blank_is_part_of_them_are_found() -> None:
    """As sentencepiece has them; a word that melts into the prompt is passed over."""
    words = Tokenizer(models.WordLevel({"<unk>": 0, "▁Answer:": 1, "▁Yes": 2, "▁No": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Metaspace()
    assert find(PreTrainedTokenizerFast(tokenizer_object=words), "Answer:") == YesNo((2,), (3,))


def test_first_letters_tell_yes_from_no_where_no_word_is_whole() -> None:
    """Of a byte-level tokenizer without merges, y and n remain."""
    assert find(Cut(), "Assistant:") == YesNo((ord("Y"), ord("y")), (ord("N"), ord("n")))


def test_after_a_blank_the_words_have_none() -> None:
    """A prompt that ends in a line break is followed by the word alone."""
    tokenizer = Cut(" Yes", " No", "Yes", "No")
    assert find(tokenizer, "assistant\n") == YesNo((tokenizer.id("Yes"),), (tokenizer.id("No"),))


def test_a_tokenizer_that_does_not_tell_yes_from_no_is_refused() -> None:
    """A probability of its first token would say nothing."""

    class Same(Cut):
        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [1] * len(text)}

    with pytest.raises(AnsweringError, match="cannot tell them apart"):
        find(Same(), "Assistant:")


def test_an_empty_prompt_is_refused(opened: Opened) -> None:
    """There is nothing to go on from."""
    with pytest.raises(DataError, match="prompt 2 is empty"):
        local(opened).answer(["a", ""])


def test_a_prompt_as_long_as_the_context_is_refused_and_a_long_one_gets_what_is_left(opened: Opened) -> None:
    """The context has 256 tokens."""
    ids = [5] * 300
    text = opened.tokenizer.decode(ids)
    whole = opened.tokenizer(text)["input_ids"]
    fitting = opened.tokenizer.decode(whole[:250])
    room = 256 - len(opened.tokenizer(fitting)["input_ids"])
    answers = local(opened).answer([fitting, "a"], Sampling(max_new_tokens=20))
    assert answers[0].completion_tokens <= room < 20
    with pytest.raises(AnsweringError, match="leaves no room in the 256"):
        local(opened).answer([text * 2])


def test_what_was_asked_is_counted(opened: Opened) -> None:
    """Requests and tokens of answers and questions."""
    model = local(opened)
    answers = model.answer(["the court", "a"], Sampling(max_new_tokens=3))
    model.yes_probability(["a"])
    assert model.meter.requests == 3
    assert model.meter.completion_tokens == sum(one.completion_tokens for one in answers) + 1


def test_nothing_to_answer_is_answered_with_nothing(opened: Opened) -> None:
    """An empty list is no error."""
    assert local(opened).answer([]) == []
    assert local(opened).yes_probability([]) == []


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"temperature": math.nan}, {"top_p": 0.0}, {"top_p": 1.5}]
)
def test_sampling_outside_its_range_is_refused(wrong: dict[str, Any]) -> None:
    """The sentence names the value and what was expected."""
    with pytest.raises(ConfigError, match="expected"):
        Sampling(**wrong)
