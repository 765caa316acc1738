"""Preference optimisation: DPO on pairs of answers, KTO on answers that were rated one by one, through TRL.

The policy is held to where the stage began, whose adapter TRL keeps beside the trained one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainingArguments
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from moehub.chat import Prompt
from moehub.errors import ConfigError, DataError
from moehub.experts import loop
from moehub.experts.evaluation import evaluate_loss, likelihoods
from moehub.experts.examples import Preference, Rated, split
from moehub.experts.material import context_of
from moehub.experts.stages import asked
from moehub.experts.stages.asked import Asked
from moehub.experts.stages.library import LibraryStage, Ours
from moehub.experts.stages.settings import PreferenceConfig
from moehub.experts.stages.stage import Measurement
from moehub.experts.tokens import Tokens
from moehub.experts.watch import Watch


@dataclass(frozen=True)
class _Judged:
    """Answers of one example: those that are good, and those that are not."""

    good: tuple[Asked, ...]
    bad: tuple[Asked, ...]

    @property
    def all(self) -> tuple[Asked, ...]:
        return self.good + self.bad


class PreferenceStage(LibraryStage[PreferenceConfig]):
    """Answers that were compared (`dpo`), or rated one by one (`kto`)."""

    def __init__(
        self,
        tokenizer: Any,
        examples: Sequence[Preference | Rated],
        config: PreferenceConfig,
        *,
        longest: int,
        kind: str,
    ) -> None:
        """Make the examples ready.

        Args:
            tokenizer: the base's.
            examples: preferences for `dpo`, rated answers for `kto`.
            config: says how.
            longest: the base's own context in tokens.
            kind: `dpo` or `kto`.

        Raises:
            ConfigError: a setting has no meaning here, or the context is more than the base takes.
            DataError: there is nothing to learn, or an example does not fit.
        """
        if kind == "kto" and config.batch_size // config.accumulation < 2:
            raise ConfigError(
                f"kto estimates how far the policy went from the other answers of a batch, and batch_size = "
                f"{config.batch_size} over accumulation = {config.accumulation} leaves one: set a larger batch_size"
            )
        if kind == "kto" and config.loss != "sigmoid":
            raise ConfigError(f"loss = {config.loss!r} is a loss of dpo, and kto has one of its own: leave it out")
        self.kind, self.config, self.tokenizer = kind, config, tokenizer
        self.context_length = context_of(config, longest)
        training, held = split(examples, config.holdout, alone=config.private > 0)
        judged = _judged(tokenizer, [*training, *held])
        kept, self.left_out = asked.fitting([one.all for one in judged], self.context_length, config)
        self._training = [judged[index] for index in kept if index < len(training)]
        self._held = [judged[index] for index in kept if index >= len(training)]
        if not self._training:
            raise DataError(f"none of {len(examples)} example(s) can be trained on: give more, or a larger context")
        sides = [any(one.good for one in self._training), any(one.bad for one in self._training)]
        if not all(sides):
            raise DataError(
                f"all answers are {'good' if sides[0] else 'bad'} ones, so there is nothing to prefer: give both"
            )
        self.examples, self.held_out_examples = len(self._training), len(self._held)
        self.documents: list[Tokens] = [answer.tokens for one in self._training for answer in one.good]

    def arguments(self, folder: Path) -> TrainingArguments:
        """Return the trainer's settings."""
        own: dict[str, Any] = {"beta": self.config.beta, "max_length": None, "disable_dropout": False}
        own |= {"gradient_checkpointing": self.config.gradient_checkpointing, "bf16": False}
        if self.kind == "kto":
            return loop.arguments_of(KTOConfig, folder, self.config, **own)
        return loop.arguments_of(DPOConfig, folder, self.config, loss_type=[self.config.loss], **own)

    def steps(self, processes: int) -> int:
        """Return the number of optimizer steps; `kto` takes answers, `dpo` pairs of them."""
        rows = sum(len(one.all) if self.kind == "kto" else len(one.good) * len(one.bad) for one in self._training)
        return loop.steps(rows, self.config, processes=processes)

    def measure(self, model: Any) -> Measurement | None:
        """Return how often the good answer is the likelier one, by the mean log p of its tokens.

        Of answers that were rated one by one, every good one is compared with every bad one.
        """
        rows = [answer.row() for one in self._held for answer in one.all]
        values = iter(likelihoods(model, rows))
        found = [([next(values) for _ in one.good], [next(values) for _ in one.bad]) for one in self._held]
        if self.kind == "kto":
            found = [([each for good, _ in found for each in good], [each for _, bad in found for each in bad])]
        pairs = [(mine > theirs) + (mine == theirs) / 2 for good, bad in found for mine in good for theirs in bad]
        return Measurement("preference accuracy", sum(pairs) / len(pairs), len(pairs)) if pairs else None

    def text_loss(self, model: Any) -> tuple[float, int] | None:
        """Return the loss on the good answers that were held out."""
        loss, tokens = evaluate_loss(model, [answer.row() for one in self._held for answer in one.good])
        return (loss, tokens) if tokens else None

    def trainer(self, model: Any, settings: TrainingArguments, watch: Watch) -> Any:
        """Return TRL's trainer of preferences."""
        kind, data = (_Kto, self._rated()) if self.kind == "kto" else (_Dpo, self._pairs())
        return kind(model=model, args=settings, train_dataset=data, processing_class=self.tokenizer, callbacks=[watch])

    def _pairs(self) -> Dataset:
        rows = [
            {"prompt_ids": good.prompt, "chosen_ids": good.answer, "rejected_ids": bad.answer}
            for one in self._training
            for good in one.good
            for bad in one.bad
        ]
        return Dataset.from_list(rows)

    def _rated(self) -> Dataset:
        """Return the answers, each with another one whose likelihood says how far the policy went."""
        rows = [
            {"prompt_ids": answer.prompt, "completion_ids": answer.answer, "label": good}
            for one in self._training
            for answers, good in ((one.good, True), (one.bad, False))
            for answer in answers
        ]
        size = self.config.batch_size // self.config.accumulation
        batches = [rows[begin : begin + size] for begin in range(0, len(rows), size)]
        mismatched = [
            {**row, "KL_completion_ids": other["completion_ids"]}
            for batch in batches
            for row, other in zip(batch, [batch[-1], *batch[:-1]], strict=True)
        ]
        return Dataset.from_list(mismatched)


class _Dpo(Ours, DPOTrainer):
    """DPO on our token ids."""


class _Kto(Ours, KTOTrainer):
    """KTO on our token ids."""


def _judged(tokenizer: Any, examples: Sequence[Preference | Rated]) -> list[_Judged]:
    said: list[tuple[Prompt, str, str]] = []
    for example in examples:
        match example:
            case Preference():
                said += [(example.prompt, answer, example.origin) for answer in (example.chosen, example.rejected)]
            case Rated():
                said.append((example.prompt, example.completion, example.origin))
    answers = iter(asked.answers(tokenizer, said))
    found = []
    for example in examples:
        match example:
            case Preference():
                found.append(_Judged((next(answers),), (next(answers),)))
            case Rated():
                answer = (next(answers),)
                found.append(_Judged(answer, ()) if example.good else _Judged((), answer))
    return found
