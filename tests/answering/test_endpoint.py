"""A model behind a server that speaks OpenAI's API."""

import logging
import socket
from typing import Any

import pytest

from moehub.answering.answerer import Answer, Answerer, Sampling
from moehub.answering.endpoint import Endpoint, Manners
from moehub.answering.meter import Meter, Price
from moehub.answering.words import said_yes
from moehub.chat import Message
from moehub.errors import AnsweringError, ConfigError
from tests.answering.speaking import question_of, speaking

ASKED = (Message("system", "Be brief."), Message("user", "Is it so?"))


def test_conversations_and_texts_are_answered_in_order() -> None:
    """A conversation goes to chat completions, a text to completions, and each gets its own answer."""
    with speaking() as server:
        model: Answerer = Endpoint(server.url, "small")
        prompts = [(Message("user", f"say {number}"),) for number in range(20)]
        answers = model.answer([*prompts, "go on from here"], Sampling(9, temperature=0.5, top_p=0.9, seed=3))
        assert [one.text for one in answers] == [*(f"say {number}" for number in range(20)), "go on from here"]
        assert answers[-1] == Answer("go on from here", 4, 4)
        asked = next(one for one in server.asked if "prompt" in one)
        expected = {"model": "small", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 3}
        assert asked == {**expected, "prompt": "go on from here"}


def test_a_conversation_is_sent_whole() -> None:
    """Roles and contents as they are, and no seed where none was given."""
    with speaking() as server:
        Endpoint(server.url, "small").answer([ASKED])
        assert server.asked[0]["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Is it so?"},
        ]
        assert "seed" not in server.asked[0]


def test_no_more_requests_are_open_than_allowed() -> None:
    """The bound is reached, and kept."""
    with speaking(seconds=0.05) as server:
        Endpoint(server.url, "small", manners=Manners(concurrency=3)).answer(["a"] * 9)
        assert server.most_open == 3


def test_yes_is_weighed_against_no_over_all_spellings() -> None:
    """Tokens with blanks and capitals count, others do not."""
    shown = {"Yes": 0.3, " yes": 0.1, "No": 0.1, "Maybe": 0.4, "▁no": 0.05}
    with speaking(believes=lambda _: shown) as server:
        probabilities = Endpoint(server.url, "small").yes_probability([ASKED, "Is it? Answer:"])
        assert probabilities == pytest.approx([0.4 / 0.55, 0.4 / 0.55])
        chat = next(one for one in server.asked if "messages" in one)
        assert (chat["logprobs"], chat["top_logprobs"], chat["max_tokens"]) == (True, 20, 1)


def test_who_says_neither_yes_nor_no_is_counted() -> None:
    """One half is no finding, so it is told how often it stands for none."""
    with speaking(believes=lambda _: {"Maybe": 0.9}) as server:
        model = Endpoint(server.url, "small")
        assert model.yes_probability([ASKED]) == [0.5]
        assert model.meter.undecided == 1


def test_a_server_without_probabilities_is_an_error_unless_it_may_vote() -> None:
    """The sentence names the cure; votes are answers that are drawn, each from a seed of its own."""
    votes = ["Yes, it is.", "no", "**Yes**", "<think>no?</think>yes", "I cannot say"]
    with speaking(says=lambda asked: votes[asked["seed"]] if "seed" in asked else "?") as server:
        with pytest.raises(AnsweringError, match=r"shows no probabilities of small .*--votes"):
            Endpoint(server.url, "small").yes_probability([ASKED])
        server.asked.clear()
        model = Endpoint(server.url, "small", manners=Manners(votes=5))
        assert [model.yes_probability([ASKED]) for _ in range(2)] == [[0.75], [0.75]]
        assert [one.get("seed") for one in server.asked] == [None, *range(5), *range(5)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(status: int) -> None:
    """Twice refused, then answered."""
    with speaking(refusals=[status, status]) as server:
        assert Endpoint(server.url, "small").answer(["a"])[0].text == "a"
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("status", "cure"), [(401, "--api-key"), (404, "check the address"), (429, "--concurrency"), (500, "later")]
)
def test_a_refusal_is_one_sentence(status: int, cure: str) -> None:
    """Status, what the server said, and the cure."""
    with speaking(refusals=[status] * 2) as server:
        model = Endpoint(server.url, "small", manners=Manners(retries=0))
        with pytest.raises(AnsweringError, match=f"status {status}: not now.*{cure}"):
            model.answer(["a"])


def test_after_a_refusal_nothing_more_is_asked() -> None:
    """Of a hundred prompts, only those that were already on their way were sent."""
    with speaking(refusals=[401] * 100) as server:
        model = Endpoint(server.url, "small", manners=Manners(concurrency=2))
        with pytest.raises(AnsweringError):
            model.answer(["a"] * 100)
        assert len(server.asked) < 20


def test_a_limit_under_its_new_name_is_found_out_once() -> None:
    """Newer models of OpenAI refuse max_tokens."""
    with speaking(renamed=True) as server:
        model = Endpoint(server.url, "small", manners=Manners(concurrency=1))
        assert [one.text for one in model.answer([ASKED, ASKED], Sampling(7))] == ["Is it so?"] * 2
        assert [one.get("max_completion_tokens") for one in server.asked] == [None, 7, 7]


def test_a_server_that_is_not_there_is_named() -> None:
    """Nobody listens on this port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(AnsweringError, match=f"{url} cannot be reached"):
            Endpoint(url, "small", manners=Manners(retries=0)).answer(["a"])


def test_a_server_that_takes_too_long_is_given_up() -> None:
    """After the seconds that were allowed."""
    with speaking(seconds=1.0) as server:
        model = Endpoint(server.url, "small", manners=Manners(retries=0, seconds=0.1))
        with pytest.raises(AnsweringError, match="did not answer within"):
            model.answer(["a"])


def test_the_key_goes_to_the_server_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not into errors or logs, at whatever level."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", "sk-hidden")
    with speaking(refusals=[401]) as server:
        model = Endpoint(server.url, "small", key_variable="MY_KEY")
        with pytest.raises(AnsweringError) as caught:
            model.answer([ASKED])
        assert server.headers[0]["authorization"] == "Bearer sk-hidden"
    assert "sk-hidden" not in str(caught.value) + caplog.text


def test_no_key_is_sent_that_was_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client would take these from the environment by itself."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "secret")
    with speaking() as server:
        Endpoint(server.url, "small").answer([ASKED, "a"])
        assert all("secret" not in "".join(sent.values()) for sent in server.headers)


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host/v1", "http://", "http://user:word@host/v1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    """Before anything is sent; a password in an address is not shown."""
    with pytest.raises(ConfigError) as caught:
        Endpoint(url, "small")
    assert "word@" not in str(caught.value)


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is sent."""
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ConfigError, match="MY_KEY"):
        Endpoint("http://127.0.0.1:1/v1", "small", key_variable="MY_KEY")


def test_tokens_and_cost_are_summed() -> None:
    """What the server counted, at the price of a million."""
    with speaking(says=lambda asked: question_of(asked) + " yes") as server:
        model = Endpoint(server.url, "small", meter=Meter(Price(2.0, 10.0)))
        model.answer(["one two three", "four"])
        assert (model.meter.requests, model.meter.prompt_tokens, model.meter.completion_tokens) == (2, 4, 6)
        assert model.meter.cost == pytest.approx((4 * 2 + 6 * 10) / 1e6)
        assert model.meter.to_dict()["cost"] == model.meter.cost


def test_a_server_that_counts_nothing_is_no_error() -> None:
    """Some leave usage away."""
    with speaking(counts=False) as server:
        assert Endpoint(server.url, "small").answer(["a"]) == [Answer("a", 0, 0)]


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"retries": -1}, {"votes": -1}, {"seconds": 0.0}])
def test_manners_outside_their_range_are_refused(wrong: dict[str, Any]) -> None:
    """The sentence names the value and what was expected."""
    with pytest.raises(ConfigError, match="expected"):
        Manners(**wrong)


def test_a_price_below_nothing_is_refused() -> None:
    """A price is 0 or more."""
    with pytest.raises(ConfigError, match="expected 0 or more"):
        Price(-1.0, 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", True),
        ("  **No**, it is not", False),
        ("<think>yes yes</think>\nno", False),
        ("Ġyes", True),
        ("yesterday", None),
        ("nothing", None),
        ("", None),
    ],
)
def test_a_yes_is_a_word_of_its_own(text: str, expected: bool | None) -> None:
    """The first word decides, whatever stands around it."""
    assert said_yes(text) is expected
