"""Models against each other: all answer the same prompts, a judge compares their answers two by two.

The folder keeps what was done, so that a killed arena goes on, and a model that comes later meets the others' answers:

| file                | what is in it                                                                          |
|---------------------|----------------------------------------------------------------------------------------|
| `arena.json`        | what must not change: how answers are written, the question, models and their references |
| `answers.jsonl`     | model, prompt (its digest), request, answer, tokens                                     |
| `comparisons.jsonl` | prompt, judge, a, b, p(first is better) in both orders, winner                          |
| `ratings.json`      | the result                                                                              |
"""

import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub import files
from moehub.answering.answerer import Sampling
from moehub.answering.meter import Meter
from moehub.errors import ConfigError, DataError
from moehub.experts.examples import Task
from moehub.judging.asking import Bias, Comparison, bias, compare
from moehub.judging.opening import Metered
from moehub.judging.prompts import digest, turns
from moehub.judging.rating import Battle
from moehub.ledger import Entry, Ledger, portions

ARENA_FILE, ANSWERS_FILE, COMPARISONS_FILE, RATINGS_FILE = (
    "arena.json",
    "answers.jsonl",
    "comparisons.jsonl",
    "ratings.json",
)
Open = Callable[[str], Metered]
OnStep = Callable[[int, str], None]
"""Called with how many steps were done, and what they were."""


@dataclass(frozen=True)
class Rules:
    """What must be the same for all models of an arena."""

    sampling: Sampling
    question: str | None = None
    """What makes an answer good; None leaves it to the judge."""

    def to_dict(self) -> dict[str, Any]:
        """Return the rules as JSON has them."""
        return {"sampling": dataclasses.asdict(self.sampling), "question": self.question}


@dataclass(frozen=True)
class Outcome:
    """What an arena came to."""

    battles: list[Battle]
    bias: Bias | None
    """Of the judge."""
    meters: Mapping[str, Meter]
    """Model, or `judge` → what was asked of it this time."""


class Arena:
    """A folder in which models meet.

    Args:
        folder: made where there is none.
        models: name → reference; those that are in the folder already need not be named again.
        rules: as those of the folder.

    Raises:
        ConfigError: the folder was made by other rules, or a name stood for another model there.
    """

    def __init__(self, folder: Path, models: Mapping[str, str], rules: Rules) -> None:
        self.folder, self.rules = folder, rules
        self.models = _joined(folder, models, rules)
        self.answers = Ledger(folder / ANSWERS_FILE)
        self.comparisons = Ledger(folder / COMPARISONS_FILE)
        self._written = {(entry["model"], entry["prompt"]): str(entry["answer"]) for entry in self.answers.entries}
        self._meters: dict[str, Meter] = {}

    def steps(self, tasks: Sequence[Task], pairs: int | None) -> int:
        """Return how many answers and comparisons belong to this arena, those that were made included."""
        return len(self.models) * len(tasks) + sum(1 for _ in self._pairs(tasks, pairs))

    def run(
        self, tasks: Sequence[Task], judge: str, *, pairs: int | None, open_model: Open, on_step: OnStep
    ) -> Outcome:
        """Make what is missing of answers and comparisons, and return all comparisons of this judge.

        Args:
            tasks: the prompts, each once.
            judge: a reference.
            pairs: prompts that each two models are compared on, drawn by chance; None for all.
            open_model: opens a model or the judge; one is open at a time.
            on_step: called as work is done, for what was done before too.

        Raises:
            MoehubError: a model cannot be opened or asked.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {"format": 1, **self.rules.to_dict(), "models": self.models}
        files.write_text(self.folder / ARENA_FILE, files.to_json(content))
        for name, reference in self.models.items():
            self._answer(name, reference, tasks, open_model, on_step)
        self._compare(tasks, judge, pairs, open_model, on_step)
        made = [entry for entry in self.comparisons.entries if self._counts(entry, judge)]
        battles = [Battle(entry["a"], entry["b"], entry["winner"]) for entry in made]
        said = [Comparison(entry["a_first"], entry["b_first"]) for entry in made]
        return Outcome(battles, bias(said), self._meters)

    def _counts(self, entry: Entry, judge: str) -> bool:
        return entry["judge"] == judge and {entry["a"], entry["b"]} <= self.models.keys()

    def _answer(self, name: str, reference: str, tasks: Sequence[Task], open_model: Open, on_step: OnStep) -> None:
        missing = [task for task in tasks if (name, digest(task.prompt)) not in self._written]
        on_step(len(tasks) - len(missing), name)
        if not missing:
            return
        model = open_model(reference)
        self._meters[name] = model.meter
        for some in portions(missing):
            answers = model.answer([task.prompt for task in some], self.rules.sampling)
            for task, answer in zip(some, answers, strict=True):
                self._written[name, digest(task.prompt)] = answer.text
            self.answers.add(
                {
                    "model": name,
                    "prompt": digest(task.prompt),
                    "request": turns(task.prompt),
                    "answer": answer.text,
                    "prompt_tokens": answer.prompt_tokens,
                    "completion_tokens": answer.completion_tokens,
                }
                for task, answer in zip(some, answers, strict=True)
            )
            on_step(len(some), name)

    def _pairs(self, tasks: Sequence[Task], pairs: int | None) -> Iterator[tuple[Task, str, str]]:
        """Yield prompts with two models each, the latter in the order of their names.

        Which prompts are drawn for two models depends on these two alone, so that others change nothing.
        """
        for a, b in itertools.combinations(sorted(self.models), 2):
            shuffled = sorted(tasks, key=lambda task: digest(task.prompt, a, b))
            yield from ((task, a, b) for task in shuffled[:pairs])

    def _compare(self, tasks: Sequence[Task], judge: str, pairs: int | None, open_model: Open, on_step: OnStep) -> None:
        known = {(entry["judge"], entry["prompt"], entry["a"], entry["b"]) for entry in self.comparisons.entries}
        wanted = list(self._pairs(tasks, pairs))
        missing = [one for one in wanted if (judge, digest(one[0].prompt), one[1], one[2]) not in known]
        on_step(len(wanted) - len(missing), "comparisons")
        if not missing:
            return
        opened = open_model(judge)
        self._meters["judge"] = opened.meter
        for some in portions(missing):
            shown = [
                (task.prompt, self._written[a, digest(task.prompt)], self._written[b, digest(task.prompt)])
                for task, a, b in some
            ]
            said = compare(opened, shown, question=self.rules.question)
            self.comparisons.add(
                {
                    "prompt": digest(task.prompt),
                    "judge": judge,
                    "a": a,
                    "b": b,
                    "winner": one.winner,
                    "a_first": one.a_first,
                    "b_first": one.b_first,
                }
                for (task, a, b), one in zip(some, said, strict=True)
            )
            on_step(len(some), "comparisons")


def unique(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks without those whose prompt came before."""
    found: dict[str, Task] = {}
    for task in tasks:
        found.setdefault(digest(task.prompt), task)
    return list(found.values())


def _joined(folder: Path, models: Mapping[str, str], rules: Rules) -> dict[str, str]:
    """Return the models of a folder with those that join them."""
    path = folder / ARENA_FILE
    before = _read(path) if path.is_file() else {**rules.to_dict(), "models": {}}
    if {name: before.get(name) for name in rules.to_dict()} != rules.to_dict():
        raise ConfigError(
            f"{folder} is an arena of other rules ({json.dumps(before.get('sampling'))}, question "
            f"{json.dumps(before.get('question'))}): answers would not compare, so name these or another folder"
        )
    for name, reference in models.items():
        if before["models"].get(name, reference) != reference:
            raise ConfigError(
                f"in {folder} the name {name!r} stands for {before['models'][name]}, and not for {reference}: "
                "choose another name"
            )
    joined = {**before["models"], **models}
    if len(joined) < 2:
        raise ConfigError(f"an arena needs two models, and {folder} has {len(joined)}: name more as --model NAME=REF")
    return joined


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}): choose another folder") from error
    if not isinstance(content, dict) or content.get("format") != 1 or not isinstance(content.get("models"), dict):
        raise DataError(f"{path} is not the file of an arena of format 1: choose another folder")
    return content
