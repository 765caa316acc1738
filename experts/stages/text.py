"""Continued pretraining and supervised fine-tuning: text to imitate, on packed rows."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from moehub import base as bases
from moehub.errors import DataError
from moehub.experts import adaptation, loop
from moehub.experts.checkpoints import Checkpoint
from moehub.experts.curves import Curves
from moehub.experts.evaluation import evaluate_loss
from moehub.experts.examples import Example, Text
from moehub.experts.material import Material, prepare
from moehub.experts.packing import keeps_apart
from moehub.experts.publication import diverged
from moehub.experts.settings import TrainConfig
from moehub.experts.stages.stage import Measurement
from moehub.experts.watch import OnStep


class TextStage:
    """Documents as a whole, and answers in conversations; what answers are given to is read and not learned."""

    task = "CAUSAL_LM"

    def __init__(
        self, tokenizer: Any, examples: Sequence[Example], config: TrainConfig, *, longest: int, kind: str = "auto"
    ) -> None:
        """Make the examples ready.

        Args:
            tokenizer: the base's.
            examples: to train on and to measure on.
            config: says how.
            longest: the base's own context in tokens.
            kind: `pretrain`, which takes documents alone, `sft`, or `auto`: whatever the examples are.

        Raises:
            ConfigError: the context is more than the base takes.
            DataError: there is nothing to learn, or an example is not for this stage.
        """
        answers = [example for example in examples if not isinstance(example, Text)]
        if kind == "pretrain" and answers:
            raise DataError(
                f"{answers[0].origin} is no document ({len(answers)} of {len(examples)} examples are questions with "
                "answers): train on those with --stage sft, or give text alone"
            )
        self.config = config
        self.material: Material = prepare(tokenizer, examples, config, longest=longest)
        self.kind = self.material.kind if kind == "auto" else kind
        self.documents = self.material.documents
        self.examples = len(self.documents)
        self.left_out = self.material.left_out
        self.context_length = self.material.context_length
        self.held_out_examples = len(self.material.held_out)
        self.rows, self.held_out = self.material.rows()

    def arguments(self, folder: Path) -> TrainingArguments:
        """Return the Trainer's settings."""
        return loop.arguments(folder, self.config)

    def steps(self, processes: int) -> int:
        """Return the number of optimizer steps."""
        return loop.steps(len(self.rows), self.config, processes=processes)

    def load(self, base: bases.Base) -> Any:
        """Return the base's model."""
        return adaptation.load(base, self.config)

    def prepare(self, model: Any) -> None:
        """Give examples rows of their own where the model does not keep those of one row apart."""
        if self.config.method in adaptation.VIRTUAL or not keeps_apart(model):
            self.rows, self.held_out = self.material.rows(join=False)

    def measure(self, model: Any) -> Measurement | None:
        """Return the held-out loss."""
        loss = self.text_loss(model)
        return None if loss is None else Measurement("loss", *loss)

    def text_loss(self, model: Any) -> tuple[float, int] | None:
        """Return the held-out loss.

        Raises:
            TrainingError: it is not finite.
        """
        loss, tokens = evaluate_loss(model, self.held_out)
        if tokens and not math.isfinite(loss):
            raise diverged(f"the held-out loss is {loss}")
        return (loss, tokens) if tokens else None

    def run(
        self,
        model: Any,
        settings: TrainingArguments,
        *,
        title: str,
        since: Checkpoint | None,
        on_step: OnStep | None,
        curves: Curves,
    ) -> Checkpoint:
        """Train on the packed rows."""
        return loop.run(
            model, self.rows, self.config, settings, title=title, since=since, on_step=on_step, curves=curves
        )
