"""What a judge is asked: about one answer, or about two, which it sees in both orders.

A judge may favour what stands first, or like to say yes. So of two answers it is asked twice, with their places
exchanged, and only where it prefers the same one both times is that its verdict; else it is a tie. How often the places
decided is reported, because a judge that is led by them judges little else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from moehub.answering.answerer import Answerer
from moehub.chat import Message, Prompt

Winner = Literal["a", "b", "tie"]
_ONE = """\
Below are a request and an answer that was given to it.

<request>
{request}
</request>

<answer>
{answer}
</answer>

{question}
Reply with one word: Yes or No."""
_TWO = """\
Below are a request and two answers that were given to it.

<request>
{request}
</request>

<first-answer>
{first}
</first-answer>

<second-answer>
{second}
</second-answer>

{measure}Is the first answer better than the second?
Reply with one word: Yes or No."""
_MEASURE = "What makes an answer good is this question: {question}\n"


@dataclass(frozen=True)
class Comparison:
    """What a judge says of two answers, a and b."""

    a_first: float
    """p(the first is better) where a stands first."""
    b_first: float
    """The same where b does."""

    @property
    def winner(self) -> Winner:
        """The answer that is preferred in both orders, else a tie."""
        if self.a_first > 0.5 > self.b_first:
            return "a"
        return "b" if self.b_first > 0.5 > self.a_first else "tie"

    @property
    def preference(self) -> float:
        """p(a is better), the mean of both orders."""
        return (self.a_first + 1 - self.b_first) / 2


EQUAL = Comparison(0.5, 0.5)
"""Of two answers that are the same."""


@dataclass(frozen=True)
class Bias:
    """How far a judge is led by the places of two answers."""

    towards_first: float
    """Mean of p(the first is better) over both orders, less one half: 0 is fair, 0.5 is the first always."""
    decided: float
    """Share of the pairs in which the same place won in both orders, so that the verdict is a tie."""

    def to_dict(self) -> dict[str, Any]:
        """Return both numbers as JSON has them."""
        return {"towards_first": self.towards_first, "decided": self.decided}


def rate(judge: Answerer, question: str, answers: Sequence[tuple[Prompt, str]]) -> list[float]:
    """Return p(yes) of a question about each answer to its prompt.

    Raises:
        MoehubError: the judge cannot be asked.
    """
    return judge.yes_probability([about_one(prompt, answer, question) for prompt, answer in answers])


def compare(
    judge: Answerer, pairs: Sequence[tuple[Prompt, str, str]], *, question: str | None = None
) -> list[Comparison]:
    """Return what a judge says of each prompt's two answers, asked in both orders; nothing of two that are equal.

    Args:
        judge: who is asked.
        pairs: a prompt and its answers a and b each.
        question: what makes an answer good; the judge's own opinion where there is none.

    Raises:
        MoehubError: the judge cannot be asked.
    """
    different = [one for one in pairs if one[1] != one[2]]
    asked = [about_two(prompt, *order, question) for prompt, a, b in different for order in ((a, b), (b, a))]
    said = iter(judge.yes_probability(asked))
    return [Comparison(next(said), next(said)) if a != b else EQUAL for _, a, b in pairs]


def bias(comparisons: Sequence[Comparison]) -> Bias | None:
    """Return how far the places decided; None where no two answers differed."""
    both = [(one.a_first, one.b_first) for one in comparisons if one != EQUAL]
    if not both:
        return None
    towards = sum(one + other for one, other in both) / (2 * len(both)) - 0.5
    return Bias(towards, sum((one - 0.5) * (other - 0.5) > 0 for one, other in both) / len(both))


def about_one(prompt: Prompt, answer: str, question: str) -> Prompt:
    """Return the question about one answer, for the judge."""
    return (Message("user", _ONE.format(request=_shown(prompt), answer=answer, question=question)),)


def about_two(prompt: Prompt, first: str, second: str, question: str | None) -> Prompt:
    """Return the question about two answers, for the judge."""
    measure = "" if question is None else _MEASURE.format(question=question)
    return (Message("user", _TWO.format(request=_shown(prompt), first=first, second=second, measure=measure)),)


def _shown(prompt: Prompt) -> str:
    """Return a prompt as a judge reads it: a text or a single turn as it is, of several turns each with its role."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return prompt[0].content
    return "\n\n".join(f"{message.role.capitalize()}: {message.content}" for message in prompt)
