"""New text, written by a model in portions, each of which is kept; what is no good or was said before is left out."""

import dataclasses
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from moehub.answering.answerer import Answer, Sampling
from moehub.answering.meter import Meter
from moehub.chat import Message, Prompt
from moehub.corpus.near import Seen
from moehub.corpus.synth import methods, quality
from moehub.corpus.synth.methods import Draft, Task
from moehub.corpus.synth.seeds import Seed
from moehub.errors import ConfigError, DataError
from moehub.judging.opening import Metered
from moehub.ledger import Entry, Ledger

_PORTION = 16
_ATTEMPTS, _PATIENCE = 10, 100
"""Attempts for each record that is wanted, and beyond them, before a model is given up."""
_REPEATED = "near-duplicate"
_REPEATS, _EVOLVED = 0.7, 0.9
"""Similarities from which on a text repeats another."""
OnStep = Callable[[int, str], None]
"""Called with how many records were kept, and a note."""


@dataclass(frozen=True)
class Plan:
    """What is to be written.

    Raises:
        ConfigError: a number is outside its range.
    """

    method: methods.Name
    model: str
    """A reference."""
    count: int
    """Records that are wanted."""
    sampling: Sampling
    threshold: float | None = None
    """Near-duplicates are at least so similar (`moehub.corpus.near`); None: what suits the method."""
    seed: int = 0

    @property
    def similarity(self) -> float:
        """The threshold, or that of the method: what was evolved keeps much of what it was."""
        if self.threshold is not None:
            return self.threshold
        return _EVOLVED if self.method == "evol-instruct" else _REPEATS

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"{self.count} records are wanted, expected at least 1")


@dataclass(frozen=True)
class Made:
    """What was written."""

    records: list[dict[str, Any]]
    attempts: int
    left_out: Mapping[str, int]
    """Reason → attempts that came to nothing."""
    meter: Meter | None
    """What was asked of the model, before a kill too; None where nothing was left to ask."""


class Making:
    """A work that goes on where it was killed.

    Args:
        plan: what is to be written.
        seeds: what it begins from.
        path: the ledger; None keeps nothing.

    Raises:
        ConfigError: the ledger is of another plan, or there are no seeds for the method.
    """

    def __init__(self, plan: Plan, seeds: Sequence[Seed], path: Path | None) -> None:
        self.plan = plan
        self._draw = methods.find(plan.method, seeds)
        self._seeds = [Task(seed.text, seed.answer, origin=seed.origin) for seed in seeds]
        self._seen = Seen(plan.similarity)
        if plan.method != "explain":
            self._seen.add_all(seed.text for seed in seeds)
        self.ledger = Ledger(path)
        self._settled(_digest(plan, seeds))
        self._written: list[Task] = []
        self._records: list[dict[str, Any]] = []
        self._attempts = 0
        self._left_out: Counter[str] = Counter()
        for entry in self.ledger.entries:
            self._recall(entry)

    def run(self, open_model: Callable[[str], Metered], on_step: OnStep) -> Made:
        """Write until there are as many records as are wanted.

        Raises:
            DataError: the model writes too little that can be kept.
            MoehubError: the model cannot be opened or asked.
        """
        on_step(min(len(self._records), self.plan.count), "")
        meter = None
        if len(self._records) < self.plan.count:
            model = open_model(self.plan.model)
            for entry in self.ledger.entries:
                model.meter.count(**entry.get("spent", {}))
            meter = model.meter
            self._write(model, on_step)
        return Made(self._records[: self.plan.count], self._attempts, dict(self._left_out.most_common()), meter)

    def first_request(self) -> Prompt:
        """Return what the model is asked first."""
        draft = self._draw(self._random(self._attempts), self._seeds, self._written)
        return draft.request or _answering(draft, draft.sources[0].text)

    def _write(self, model: Metered, on_step: OnStep) -> None:
        most = self.plan.count * _ATTEMPTS + _PATIENCE
        while len(self._records) < self.plan.count:
            if self._attempts >= most:
                raise DataError(
                    f"of {self._attempts} attempts of {model.name} {len(self._records)} can be kept, and "
                    f"{self.plan.count} are wanted ({_reasons(self._left_out)}): give more and other seeds, another "
                    "model, or ask for fewer"
                )
            before, kept = model.meter.spent(), len(self._records)
            entries = self._portion(model, self._attempts_now())
            self.ledger.add([*entries, {"spent": model.meter.spent(since=before)}])
            for entry in entries:
                self._recall(entry, known=True)
            on_step(min(len(self._records), self.plan.count) - kept, _reasons(self._left_out))

    def _attempts_now(self) -> int:
        """Return how many attempts are likely to be enough, a portion at most."""
        likely = (len(self._records) + 1) / (self._attempts + 1)
        return min(_PORTION, math.ceil((self.plan.count - len(self._records)) / likely))

    def _portion(self, model: Metered, count: int) -> list[dict[str, Any]]:
        """Return the entries of some attempts, kept or not."""
        numbers = range(self._attempts, self._attempts + count)
        drafts = [self._draw(self._random(number), self._seeds, self._written) for number in numbers]
        texts = self._texts(model, drafts)
        entries: list[dict[str, Any]] = [{"attempt": number} for number in numbers]
        waiting: list[int] = []
        for place, (draft, text) in enumerate(zip(drafts, texts, strict=True)):
            fault = self._fault(draft, text)
            if fault is None:
                waiting.append(place)
            else:
                entries[place]["fault"] = fault
        self._answer(model, drafts, texts, waiting, entries)
        return entries

    def _texts(self, model: Metered, drafts: Sequence[Draft]) -> list[str]:
        """Return the new task or document of each draft, or its own task where none is asked for."""
        asked = [draft.request for draft in drafts if draft.request is not None]
        answers = iter(model.answer(asked, self._sampling(0)))
        return [
            draft.sources[0].text if draft.request is None else self._text(draft, next(answers)) for draft in drafts
        ]

    def _text(self, draft: Draft, answer: Answer) -> str:
        whole = answer.completion_tokens < self.plan.sampling.max_new_tokens
        return quality.cleaned(answer.text) if whole or not draft.document else ""

    def _fault(self, draft: Draft, text: str) -> str | None:
        if draft.request is None:
            return None
        sources = [one.text for one in draft.sources]
        check = quality.text_fault if draft.document else quality.task_fault
        fault = check(text, sources)
        return fault if fault is not None or self._seen.add(text) else _REPEATED

    def _answer(
        self,
        model: Metered,
        drafts: Sequence[Draft],
        texts: Sequence[str],
        waiting: Sequence[int],
        entries: Sequence[dict[str, Any]],
    ) -> None:
        """Complete the entries that wait for an answer, and those that need none."""
        known = {place: self._known(drafts[place]) for place in waiting}
        unknown = [place for place in waiting if known[place] is None]
        asked = [_answering(drafts[place], texts[place]) for place in unknown]
        replies = dict(zip(unknown, model.answer(asked, self._sampling(1)), strict=True))
        for place in waiting:
            draft, text, said = drafts[place], texts[place], known[place]
            fault = None
            if said is None:
                reply = replies[place]
                said = reply.text.rsplit("</think>", maxsplit=1)[-1].strip()
                cut = reply.completion_tokens >= self.plan.sampling.max_new_tokens
                fault = quality.answer_fault(said, text, cut=cut)
            if fault is None and draft.request is None and not self._seen.add(said):
                fault = _REPEATED
            outcome = {"record": self._record(draft, text, said, model.name)} if fault is None else {"fault": fault}
            entries[place].update(outcome, text=text, depth=draft.sources[0].depth + 1)

    @staticmethod
    def _known(draft: Draft) -> str | None:
        """Return the answer that needs not be asked for: of a document none, of a task in other words the seed's."""
        if draft.document:
            return ""
        return draft.sources[0].answer if draft.operation == "reword" else None

    def _record(self, draft: Draft, text: str, answer: str, model: str) -> dict[str, Any]:
        origins = [one.origin for one in draft.sources if one.origin]
        made = {"method": self.plan.method, "operation": draft.operation, "model": model, "from": origins}
        if draft.document:
            return {"text": text, "made": made}
        if draft.system is None:
            return {"instruction": text, "output": answer, "made": made}
        turns = (("system", draft.system), ("user", text), ("assistant", answer))
        return {"messages": [{"role": role, "content": content} for role, content in turns], "made": made}

    def _recall(self, entry: Entry, *, known: bool = False) -> None:
        """Take in an entry of the ledger; `known`: its texts are among those that were seen."""
        if "attempt" not in entry:
            return
        self._attempts = int(entry["attempt"]) + 1
        if "fault" in entry:
            self._left_out[entry["fault"]] += 1
        if not known and "text" in entry:
            record = entry.get("record")
            again = entry["text"] if self.plan.method != "explain" else record and record["messages"][-1]["content"]
            if again:
                self._seen.add(again)
        if "record" in entry:
            self._records.append(entry["record"])
            self._written.append(Task(entry["text"], depth=entry["depth"]))

    def _settled(self, digest: str) -> None:
        """Begin the ledger, or refuse one of another work."""
        if not self.ledger.entries:
            self.ledger.add([{"begun": digest}])
        elif self.ledger.entries[0].get("begun") != digest:
            raise ConfigError(
                f"{self.ledger.path} was begun with another method, model, seeds or settings: repeat the command that "
                "began it, or remove the file"
            )

    def _random(self, attempt: int) -> methods.Random:
        return np.random.default_rng([self.plan.seed, attempt])

    def _sampling(self, stage: int) -> Sampling:
        """Return how a stage of this portion is written: each draws from a seed of its own."""
        return dataclasses.replace(self.plan.sampling, seed=2 * (self.plan.seed * 1_000_003 + self._attempts) + stage)


def _answering(draft: Draft, task: str) -> Prompt:
    asked = Message("user", task)
    return (asked,) if draft.system is None else (Message("system", draft.system), asked)


def _digest(plan: Plan, seeds: Sequence[Seed]) -> str:
    """Return what decides the work but for how much is wanted, as a sha256 in hex."""
    said = {**dataclasses.asdict(plan), "count": None, "seeds": [[seed.text, seed.answer] for seed in seeds]}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _reasons(left_out: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none left out"
