"""How new text is asked for: four methods, each a way to draw from what is there and a request to the model.

* **self-instruct**: a few tasks as examples, and one new task is asked for (Wang et al., Self-Instruct, 2022).
* **evol-instruct**: one task, and a harder or a rarer one is asked for, again and again (Xu et al., WizardLM, 2023).
* **rewrite**: a document in another manner (Maini et al., Rephrasing the Web, 2024); a task in other words, whose
  answer stays.
* **explain**: a task as it is, answered with reasons under one of several system messages (Mukherjee et al., Orca,
  2023).

The requests are our own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from moehub.chat import Message, Prompt
from moehub.corpus.synth.seeds import Seed
from moehub.errors import ConfigError

Name = Literal["self-instruct", "evol-instruct", "rewrite", "explain"]
Random = np.random.Generator
_EXAMPLES = 4
"""Tasks that a new one is shown, at most half of them written before."""
_DEEPEST = 4
"""Steps that a task may have been changed."""

_NEW_TASK = """\
Here are some tasks that people gave to an assistant:

{examples}

Write one new task of the same field that differs from all of them in subject and in what is to be done. It must be \
possible to solve it from its own text, without looking anything up. Reply with the task alone."""
_CHANGED = """\
Here is a task that somebody gave to an assistant:

<task>
{task}
</task>

{change} The result must make sense, and it must be possible to solve it from its own text. Reply with the new task \
alone."""
_CHANGES: Mapping[str, str] = {
    "constrain": "Write it anew with one more condition that the answer has to meet.",
    "deepen": "Write it anew so that it asks for a more thorough understanding of its subject.",
    "specify": "Write it anew with a concrete case in place of what it says in general.",
    "reason": "Write it anew so that it takes more steps of thought to solve.",
    "complicate": "Write it anew with some data, a table or a piece of text that has to be used to solve it.",
    "broaden": "Write another task of the same field and about as hard, on something that is asked more rarely.",
}
_REWRITTEN = """\
Here is a text:

<text>
{text}
</text>

{manner} Keep every fact and add none. Reply with the text alone."""
_MANNERS: Mapping[str, str] = {
    "plain": "Write it anew in short, plain sentences.",
    "encyclopedic": "Write it anew as an encyclopedia would.",
    "dialogue": "Write it anew as questions and answers that together say the same.",
    "reordered": "Write it anew in other words, and in another order where the order does not matter.",
}
_REWORDED = """\
Here is a task that somebody gave to an assistant:

<task>
{task}
</task>

Write it anew in other words, so that exactly the same answer is right. Reply with the task alone."""
_STYLES: Mapping[str, str] = {
    "steps": "Answer step by step, say why each step is right, and end with the result.",
    "beginner": "Answer so that somebody who is new to the subject can follow every thought.",
    "teacher": "Answer as a teacher does: first what is known, then the rule that is needed, then how it is used here.",
    "check": "Answer, give the reasons, and then show how one can check that the answer is right.",
    "choices": "Before you answer, name what else one might think, and say why it does not hold.",
}


@dataclass(frozen=True)
class Task:
    """A task that can be drawn: a seed, or one that was written."""

    text: str
    answer: str | None = None
    depth: int = 0
    """How often it was changed since it was a seed."""
    origin: str = ""


@dataclass(frozen=True)
class Draft:
    """What one attempt begins with."""

    operation: str
    """What is done, for the record."""
    sources: tuple[Task, ...]
    request: Prompt | None = None
    """Asks for the new text; None where the task is taken as it is."""
    system: str | None = None
    """Under which the task is answered."""
    document: bool = False
    """Whether the new text is a document, which has no answer."""


Draw = Callable[[Random, Sequence[Task], Sequence[Task]], Draft]
"""Draws from seeds and from what was written so far."""


def find(name: Name, seeds: Sequence[Seed]) -> Draw:
    """Return how a method draws.

    Raises:
        ConfigError: the method is unknown, or there are no seeds of its kind.
    """
    documents = sum(not seed.is_task for seed in seeds)
    if name not in _METHODS:
        raise ConfigError(f"the method {name!r} is unknown, expected {', '.join(_METHODS)}")
    if name == "rewrite" and documents not in {0, len(seeds)}:
        raise ConfigError(
            f"{documents} of {len(seeds)} seeds are documents and the others tasks: rewrite them apart, file by file"
        )
    if name == "rewrite":
        return _rewrite_document if documents else _rewrite_task
    if documents:
        raise ConfigError(
            f"{documents} of {len(seeds)} seeds are documents, and {name} begins with tasks: expected instruction, "
            "prompt or messages, or --method rewrite"
        )
    return _METHODS[name]


def _one(random: Random, among: Sequence[Task]) -> Task:
    return among[int(random.integers(len(among)))]


def _some(random: Random, among: Sequence[Task], count: int) -> list[Task]:
    return [among[int(place)] for place in random.permutation(len(among))[:count]]


def _key(random: Random, among: Mapping[str, str]) -> str:
    return list(among)[int(random.integers(len(among)))]


def _self_instruct(random: Random, seeds: Sequence[Task], written: Sequence[Task]) -> Draft:
    later = _some(random, written, _EXAMPLES // 2)
    shown = [*_some(random, seeds, _EXAMPLES - len(later)), *later]
    examples = "\n\n".join(f"<task>\n{one.text}\n</task>" for one in shown)
    return Draft("new", tuple(shown), _user(_NEW_TASK.format(examples=examples)))


def _evol_instruct(random: Random, seeds: Sequence[Task], written: Sequence[Task]) -> Draft:
    task = _one(random, [*seeds, *(one for one in written if one.depth < _DEEPEST)])
    change = _key(random, _CHANGES)
    return Draft(change, (task,), _user(_CHANGED.format(task=task.text, change=_CHANGES[change])))


def _rewrite_document(random: Random, seeds: Sequence[Task], _: Sequence[Task]) -> Draft:
    one, manner = _one(random, seeds), _key(random, _MANNERS)
    request = _user(_REWRITTEN.format(text=one.text, manner=_MANNERS[manner]))
    return Draft(manner, (one,), request, document=True)


def _rewrite_task(random: Random, seeds: Sequence[Task], _: Sequence[Task]) -> Draft:
    one = _one(random, seeds)
    return Draft("reword", (one,), _user(_REWORDED.format(task=one.text)))


def _explain(random: Random, seeds: Sequence[Task], _: Sequence[Task]) -> Draft:
    style = _key(random, _STYLES)
    return Draft(style, (_one(random, seeds),), system=_STYLES[style])


def _user(text: str) -> Prompt:
    return (Message("user", text),)


_METHODS: Mapping[str, Draw] = {
    "self-instruct": _self_instruct,
    "evol-instruct": _evol_instruct,
    "rewrite": _rewrite_task,
    "explain": _explain,
}
NAMES: tuple[str, ...] = tuple(_METHODS)
