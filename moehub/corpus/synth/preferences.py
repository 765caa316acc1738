"""Pairs of answers of which one is better: two are written to each prompt, and a judge compares them in both orders."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moehub.answering.answerer import Sampling
from moehub.answering.meter import Meter
from moehub.errors import ConfigError
from moehub.experts.examples import Task
from moehub.judging.asking import EQUAL, Bias, Comparison, bias, compare
from moehub.judging.opening import Metered
from moehub.judging.prompts import digest, turns
from moehub.ledger import Ledger, portions

OnStep = Callable[[int, str], None]
"""Called with how many answers or comparisons were made, and which."""


@dataclass(frozen=True)
class Plan:
    """Who answers, and who judges.

    Raises:
        ConfigError: one model is to write both answers without chance, so that they would be the same.
    """

    models: tuple[str, str]
    """References, that of the first answer and that of the second; they may be the same."""
    judge: str
    sampling: Sampling
    question: str | None = None
    """What makes an answer good; None leaves it to the judge."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.models[0] == self.models[1] and self.sampling.temperature == 0:
            raise ConfigError(
                "one model writes the same answer twice at temperature 0: give --temperature 0.8, or another model as "
                "--model2"
            )


@dataclass(frozen=True)
class Preferred:
    """What came of it."""

    records: list[dict[str, Any]]
    """Prompt, chosen and rejected; who wrote them; p(the chosen is better), the mean of both orders."""
    ties: int
    """Pairs that were left out because the judge preferred neither in both orders."""
    equal: int
    """Pairs that were left out because both answers were the same."""
    bias: Bias | None
    """Of the judge."""
    meters: Mapping[str, Meter]
    """Reference → what was asked of it this time."""


class Preferring:
    """A work that goes on where it was killed.

    Args:
        plan: who answers and who judges.
        tasks: the prompts, each once.
        path: the ledger; None keeps nothing.

    Raises:
        ConfigError: the ledger is of another plan.
    """

    def __init__(self, plan: Plan, tasks: Sequence[Task], path: Path | None) -> None:
        self.plan = plan
        self._prompts = {digest(task.prompt): task.prompt for task in tasks}
        self.ledger = Ledger(path)
        self._settled()
        self._answers: dict[tuple[str, int], str] = {}
        self._said: dict[str, Comparison] = {}
        self._meters: dict[str, Meter] = {}
        for entry in self.ledger.entries:
            if "answer" in entry:
                self._answers[entry["prompt"], entry["place"]] = entry["answer"]
            elif "said" in entry:
                self._said[entry["prompt"]] = Comparison(*entry["said"])

    @property
    def steps(self) -> int:
        """How many answers and comparisons there are to make."""
        return 3 * len(self._prompts)

    def run(self, open_model: Callable[[str], Metered], on_step: OnStep) -> Preferred:
        """Write and judge what is missing; one model is open at a time.

        Raises:
            MoehubError: a model cannot be opened or asked.
        """
        for place in (0, 1):
            self._answer(place, open_model, on_step)
        self._judge(open_model, on_step)
        said = [self._said[name] for name in self._prompts]
        records = [record for name in self._prompts if (record := self._record(name)) is not None]
        equal = sum(one == EQUAL for one in said)
        ties = len(said) - len(records) - equal
        return Preferred(records, ties, equal, bias(said), self._meters)

    def _answer(self, place: int, open_model: Callable[[str], Metered], on_step: OnStep) -> None:
        missing = [name for name in self._prompts if (name, place) not in self._answers]
        note = f"answers {place + 1}"
        on_step(len(self._prompts) - len(missing), note)
        # The two answers of one model differ by their seeds.
        sampling = dataclasses.replace(self.plan.sampling, seed=2 * self.plan.seed + place)
        for names, model in self._asked(missing, self.plan.models[place], open_model):
            answers = model.answer([self._prompts[name] for name in names], sampling)
            made = {(name, place): answer.text for name, answer in zip(names, answers, strict=True)}
            self._answers |= made
            self.ledger.add({"prompt": name, "place": place, "answer": text} for (name, _), text in made.items())
            on_step(len(names), note)

    def _judge(self, open_model: Callable[[str], Metered], on_step: OnStep) -> None:
        missing = [name for name in self._prompts if name not in self._said]
        on_step(len(self._prompts) - len(missing), "comparisons")
        for names, judge in self._asked(missing, self.plan.judge, open_model):
            pairs = [(self._prompts[name], self._answers[name, 0], self._answers[name, 1]) for name in names]
            said = compare(judge, pairs, question=self.plan.question)
            self._said |= dict(zip(names, said, strict=True))
            self.ledger.add(
                {"prompt": name, "said": [one.a_first, one.b_first]} for name, one in zip(names, said, strict=True)
            )
            on_step(len(names), "comparisons")

    def _asked(
        self, missing: Sequence[str], reference: str, open_model: Callable[[str], Metered]
    ) -> Iterator[tuple[Sequence[str], Metered]]:
        """Yield portions of prompts with the model to ask."""
        if not missing:
            return
        model = open_model(reference)
        yield from ((names, model) for names in portions(missing))
        if reference in self._meters:
            self._meters[reference].count(**model.meter.spent())
        else:
            self._meters[reference] = model.meter

    def _record(self, name: str) -> dict[str, Any] | None:
        """Return a prompt with its better and its worse answer; None where neither is."""
        said = self._said[name]
        if said.winner == "tie":
            return None
        better, worse = (0, 1) if said.winner == "a" else (1, 0)
        certainty = said.preference if better == 0 else 1 - said.preference
        return {
            "prompt": turns(self._prompts[name]),
            "chosen": self._answers[name, better],
            "rejected": self._answers[name, worse],
            "made": {
                "chosen": self.plan.models[better],
                "rejected": self.plan.models[worse],
                "judge": self.plan.judge,
                "p": certainty,
            },
        }

    def _settled(self) -> None:
        """Begin the ledger, or refuse one of another work."""
        said = json.dumps(dataclasses.asdict(self.plan), sort_keys=True)
        begun = hashlib.sha256(said.encode()).hexdigest()
        if not self.ledger.entries:
            self.ledger.add([{"begun": begun}])
        elif self.ledger.entries[0].get("begun") != begun:
            raise ConfigError(
                f"{self.ledger.path} was begun with other models or settings: repeat the command that began it, or "
                "remove the file"
            )
