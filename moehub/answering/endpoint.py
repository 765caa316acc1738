"""A model behind any server that speaks OpenAI's API, through the `openai` client.

Nothing is sent anywhere but to the address that was named. The key comes from an environment variable that is named too
and goes to no other address; what the client would take from variables by itself (`OPENAI_API_KEY`, organization,
project) is left alone.
"""

import math
import os
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from moehub.answering.answerer import GREEDY, Answer, Sampling
from moehub.answering.meter import Meter
from moehub.answering.words import said_yes
from moehub.chat import Prompt
from moehub.errors import AnsweringError, ConfigError

_LISTED, _LISTED_OF_TEXT = 20, 5
"""Tokens whose probabilities are asked for: the most that OpenAI allows in a conversation, and after a text."""
_VOTE_TOKENS = 256
"""Room for a vote: some models think before they say yes or no."""
_UNKNOWN_LIMIT = "max_completion_tokens"
"""How newer models of OpenAI call the limit of an answer, and refuse its old name."""
T = TypeVar("T")


@dataclass(frozen=True)
class Manners:
    """How a server is asked.

    Raises:
        ConfigError: a number is outside its range.
    """

    concurrency: int = 8
    """Requests that are open at once."""
    retries: int = 4
    """How often the client asks again after 408, 409, 429, 5xx or a lost connection, waiting longer each time."""
    seconds: float = 120.0
    """After which a request is given up."""
    votes: int = 0
    """Answers to draw for a yes or no where the server shows no probabilities; 0: that is an error."""

    def __post_init__(self) -> None:
        least = {"concurrency": 1, "retries": 0, "votes": 0}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ConfigError(f"{name} = {getattr(self, name)}, expected at least {smallest}")
        if not self.seconds > 0:
            raise ConfigError(f"seconds = {self.seconds}, expected more than 0")


class Endpoint:
    """A model that a server offers.

    Args:
        url: where the server's API begins, as `http://127.0.0.1:8000/v1`.
        model: what the server calls the model.
        key_variable: the environment variable that holds the key; None: no key is sent.
        manners: how the server is asked.
        meter: counts what was asked; a new one where none is given.

    Raises:
        ConfigError: the address is none, or the variable is not set.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_variable: str | None = None,
        manners: Manners | None = None,
        meter: Meter | None = None,
    ) -> None:
        self.url, self.model = _checked(url), model
        self.name = model
        self.manners = manners or Manners()
        self.meter = meter or Meter()
        key = _key(self.url, key_variable)
        self._client = _client(self.url, key, self.manners)
        # Connections are closed with the last reference, so that nobody has to remember to.
        weakref.finalize(self, self._client.close)
        self._headers = _headers(key)
        self._limit_name = "max_tokens"
        self._shows = True

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling = GREEDY) -> list[Answer]:
        """Return one answer for each prompt, in order: of a conversation, or of a text that is gone on from.

        Raises:
            AnsweringError: the server cannot be reached, refuses, or sends no answer.
        """

        def one(prompt: Prompt) -> Answer:
            reply = self._ask(prompt, sampling)
            return Answer(self._text(reply), *self._usage(reply))

        return self._each(one, prompts)

    def yes_probability(self, questions: Sequence[Prompt]) -> list[float]:
        """Return p(yes) / (p(yes) + p(no)) of each question's first token, as far as the server lists probabilities.

        One of the two that is not listed counts as 0; where neither is, the answer is one half and counted as
        undecided. Where the server lists none at all and votes are allowed, it is the share of yes among them.

        Raises:
            AnsweringError: as `answer`, or the server lists none and no votes are allowed.
        """
        return self._each(self._yes, questions)

    def _yes(self, question: Prompt) -> float:
        listed = _listed(self._ask(question, Sampling(max_new_tokens=1), listed=True)) if self._shows else None
        if listed is not None:
            return self._decided(
                sum(math.exp(value) for token, value in listed if said_yes(token) is True),
                sum(math.exp(value) for token, value in listed if said_yes(token) is False),
            )
        if not self.manners.votes:
            raise AnsweringError(
                f"{self.url} shows no probabilities of {self.model} (logprobs), so it is not known how surely it says "
                "yes: choose a server that shows them, or let it vote with --votes 5"
            )
        self._shows = False
        votes = [said_yes(self._text(self._vote(question, seed))) for seed in range(self.manners.votes)]
        return self._decided(votes.count(True), votes.count(False))

    def _vote(self, question: Prompt, seed: int) -> Any:
        return self._ask(question, Sampling(_VOTE_TOKENS, temperature=1.0, seed=seed))

    def _decided(self, yes: float, no: float) -> float:
        if yes + no > 0:
            return yes / (yes + no)
        self.meter.count(undecided=1)
        return 0.5

    def _each(self, ask: Callable[[Prompt], T], prompts: Sequence[Prompt]) -> list[T]:
        """Ask about all prompts, a few at once; after an error nothing more is asked."""
        with ThreadPoolExecutor(self.manners.concurrency) as pool:
            waiting = [pool.submit(ask, prompt) for prompt in prompts]
            try:
                return [one.result() for one in waiting]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, prompt: Prompt, sampling: Sampling, *, listed: bool = False) -> Any:
        import openai

        try:
            reply = self._send(prompt, sampling, listed=listed)
        except openai.APIStatusError as error:
            raise AnsweringError(self._refusal(error)) from error
        except openai.APITimeoutError as error:
            raise AnsweringError(
                f"{self.url} did not answer within {self.manners.seconds:.0f} s, asked {self.manners.retries + 1} "
                "times: ask less at once, or try again later"
            ) from error
        except openai.APIConnectionError as error:
            raise AnsweringError(
                f"{self.url} cannot be reached ({error.__cause__ or error}): check the address and that its server runs"
            ) from error
        except openai.APIError as error:
            raise AnsweringError(f"{self.url} sent what is no answer ({error.message}): check the address") from error
        self._count(reply)
        return reply

    def _send(self, prompt: Prompt, sampling: Sampling, *, listed: bool) -> Any:
        options: dict[str, Any] = {"model": self.model, "temperature": sampling.temperature}
        options["extra_headers"] = self._headers
        if sampling.top_p < 1:
            options["top_p"] = sampling.top_p
        if sampling.seed is not None:
            options["seed"] = sampling.seed
        if isinstance(prompt, str):
            options |= {"logprobs": _LISTED_OF_TEXT} if listed else {}
            return self._client.completions.create(prompt=prompt, max_tokens=sampling.max_new_tokens, **options)
        options |= {"logprobs": True, "top_logprobs": _LISTED} if listed else {}
        options["messages"] = [{"role": message.role, "content": message.content} for message in prompt]
        return self._converse(options, sampling.max_new_tokens)

    def _converse(self, options: dict[str, Any], limit: int) -> Any:
        """Ask in a conversation; a server that wants the limit under its new name is given it from then on."""
        import openai

        name = self._limit_name
        try:
            return self._client.chat.completions.create(**options, **{name: limit})
        except openai.BadRequestError as error:
            if name == _UNKNOWN_LIMIT or _UNKNOWN_LIMIT not in error.message:
                raise
        self._limit_name = _UNKNOWN_LIMIT
        return self._client.chat.completions.create(**options, **{_UNKNOWN_LIMIT: limit})

    def _refusal(self, error: Any) -> str:
        cures = {
            401: "name the variable that holds the key of this host with --api-key HOST=VARIABLE",
            403: "use a key that may ask this model",
            404: "check the address, which often ends in /v1, and the model's name after #",
            429: "ask less at once with --concurrency, or try again later",
        }
        cure = cures.get(
            error.status_code, "see what the server says" if error.status_code < 500 else "try again later"
        )
        said = " ".join(_said(error).split())[:200]
        return f"{self.url} refused to ask {self.model} (status {error.status_code}: {said}): {cure}"

    def _text(self, reply: Any) -> str:
        choices = getattr(reply, "choices", None)
        if not choices:
            raise AnsweringError(f"{self.url} sent no answer of {self.model}: check that it speaks OpenAI's API")
        message = getattr(choices[0], "message", None)
        text = choices[0].text if message is None else message.content
        return text or ""

    def _usage(self, reply: Any) -> tuple[int, int]:
        """Return the tokens that were read and written; 0 where the server does not say."""
        usage = getattr(reply, "usage", None)
        return (getattr(usage, "prompt_tokens", 0) or 0, getattr(usage, "completion_tokens", 0) or 0)

    def _count(self, reply: Any) -> None:
        read, written = self._usage(reply)
        self.meter.count(requests=1, prompt_tokens=read, completion_tokens=written)


def _checked(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"{url} is no address of a server, expected one like http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise ConfigError(
            f"the address of {parts.hostname} holds a name or a password, which others could read: put the key into an "
            "environment variable and name that"
        )
    return url


def _key(url: str, variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise ConfigError(f"the environment variable {variable}, which is to hold the key of {url}, is not set")
    return key


def _client(url: str, key: str | None, manners: Manners) -> Any:
    from openai import OpenAI

    # Empty keys, not None: the client would look for some by itself.
    client = OpenAI(
        base_url=url, api_key=key or "", admin_api_key="", timeout=manners.seconds, max_retries=manners.retries
    )
    client.organization = client.project = None
    return client


def _headers(key: str | None) -> dict[str, Any]:
    """Return the headers that say that no key is sent, where there is none."""
    from openai import Omit

    return {} if key else {"Authorization": Omit()}


def _said(error: Any) -> str:
    body = error.body
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error.message)


def _listed(reply: Any) -> list[tuple[str, float]] | None:
    """Return the first token's alternatives with their log probabilities; None where the server shows none."""
    choices = getattr(reply, "choices", None) or [None]
    shown = getattr(choices[0], "logprobs", None)
    content = getattr(shown, "content", None)
    if content:
        return [(one.token, one.logprob) for one in content[0].top_logprobs or []] or None
    first = next(iter(getattr(shown, "top_logprobs", None) or []), None)
    return list(first.items()) if first else None
