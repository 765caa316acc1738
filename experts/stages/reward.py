"""A reward model: the base with an adapter and a head that gives one number, trained on answers that were compared.

The loss is -log σ(r(chosen) - r(rejected)) (Bradley and Terry 1952; Ouyang et al. 2022, equation 1), through TRL.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainingArguments
from trl import RewardConfig as LibraryConfig
from trl import RewardTrainer

from moehub import base as bases
from moehub.card import REWARD
from moehub.chat import Prompt
from moehub.errors import DataError, ExpertError
from moehub.experts import adaptation, loop
from moehub.experts.evaluation import batches
from moehub.experts.examples import Preference, split
from moehub.experts.folder import open_expert
from moehub.experts.material import context_of
from moehub.experts.packing import Row, collate
from moehub.experts.rewards import RewardModel
from moehub.experts.settings import TrainConfig
from moehub.experts.stages import asked
from moehub.experts.stages.asked import Asked
from moehub.experts.stages.library import LibraryStage, Ours
from moehub.experts.stages.settings import RewardConfig
from moehub.experts.stages.stage import Measurement
from moehub.experts.tokens import Tokens
from moehub.experts.watch import Watch

_BATCH_TOKENS = 8192


class RewardStage(LibraryStage[RewardConfig]):
    """Answers that were compared."""

    kind = REWARD
    task = "SEQ_CLS"

    def __init__(self, tokenizer: Any, examples: Sequence[Preference], config: RewardConfig, *, longest: int) -> None:
        """Make the examples ready.

        Args:
            tokenizer: the base's.
            examples: to train on and to measure on.
            config: says how.
            longest: the base's own context in tokens.

        Raises:
            ConfigError: the context is more than the base takes.
            DataError: there is nothing to learn, or an example does not fit.
        """
        self.config, self.tokenizer = config, tokenizer
        self.context_length = context_of(config, longest)
        training, held = split(examples, config.holdout)
        pairs = _pairs(tokenizer, [*training, *held])
        kept, self.left_out = asked.fitting(pairs, self.context_length, config)
        self._training = [pairs[index] for index in kept if index < len(training)]
        self._held = [pairs[index] for index in kept if index >= len(training)]
        if not self._training:
            raise DataError(f"none of {len(examples)} example(s) can be trained on: give more, or a larger context")
        self.examples, self.held_out_examples = len(self._training), len(self._held)
        self.documents: list[Tokens] = []

    def arguments(self, folder: Path) -> TrainingArguments:
        """Return the trainer's settings."""
        return loop.arguments_of(
            LibraryConfig,
            folder,
            self.config,
            max_length=None,
            center_rewards_coefficient=self.config.center or None,
            disable_dropout=False,
            gradient_checkpointing=self.config.gradient_checkpointing,
            bf16=False,
        )

    def steps(self, processes: int) -> int:
        """Return the number of optimizer steps."""
        return loop.steps(len(self._training), self.config, processes=processes)

    def load(self, base: bases.Base) -> Any:
        """Return the base's model with a new head, decided by `config.seed`."""
        torch.manual_seed(self.config.seed)
        model = adaptation.load(base, self.config, rating=True)
        model.config.get_text_config().pad_token_id = _pad(self.tokenizer)
        return model

    def measure(self, model: Any) -> Measurement | None:
        """Return how often the chosen answer is rated higher."""
        rewards = rate(model, [answer.row() for pair in self._held for answer in pair])
        pairs = list(zip(rewards[::2], rewards[1::2], strict=True))
        right = sum((mine > theirs) + (mine == theirs) / 2 for mine, theirs in pairs)
        return Measurement("preference accuracy", right / len(pairs), len(pairs)) if pairs else None

    def trainer(self, model: Any, settings: TrainingArguments, watch: Watch) -> Any:
        """Return TRL's trainer of reward models."""
        rows = [
            {"chosen_ids": chosen.prompt + chosen.answer, "rejected_ids": rejected.prompt + rejected.answer}
            for chosen, rejected in self._training
        ]
        data = Dataset.from_list(rows)
        return _Reward(
            model=model, args=settings, train_dataset=data, processing_class=self.tokenizer, callbacks=[watch]
        )


class _Reward(Ours, RewardTrainer):
    """TRL's trainer on our token ids."""


def open_rater(folder: Path, base: bases.Base) -> RewardModel:
    """Return what rates answers with the reward model in `folder`.

    Raises:
        ExpertError: it holds no reward model.
        BaseModelError: the reward model belongs to another base.
    """
    from peft import PeftModel

    card = open_expert(folder).card
    if card.purpose != REWARD:
        raise ExpertError(f"{folder} is an expert and no reward model: train one with --stage reward")
    base.require(card.base.digest, otherwise=f"the reward model {card.name!r} was not trained on it")
    with adaptation.quiet():
        tokenizer = base.load_tokenizer()
        model = adaptation.load(base, TrainConfig(), rating=True)
        model.config.get_text_config().pad_token_id = _pad(tokenizer)
        rated = PeftModel.from_pretrained(model, str(folder))
        rated.eval()

    def rewards(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float]:
        said = [(prompt, answer or " ", "an answer") for prompt, answer in zip(prompts, answers, strict=True)]
        return rate(rated, [one.row() for one in asked.answers(tokenizer, said)])

    return rewards


@torch.no_grad()
def rate(model: Any, rows: Sequence[Row], *, batch_tokens: int = _BATCH_TOKENS) -> list[float]:
    """Return the reward of each row, in their order: the head's number at the last token."""
    device = model.get_input_embeddings().weight.device
    pad = model.config.get_text_config().pad_token_id
    was_training = model.training
    model.eval()
    found: dict[int, float] = {}
    try:
        for batch in batches(rows, batch_tokens):
            ids = collate(batch, pad)["input_ids"].to(device)
            lengths = torch.tensor([len(row.ids) for row in batch], device=device)
            mask = torch.arange(ids.shape[1], device=device) < lengths[:, None]
            logits = model(input_ids=ids, attention_mask=mask.long(), use_cache=False).logits
            found |= {id(row): float(value) for row, value in zip(batch, logits[:, 0], strict=True)}
    finally:
        model.train(was_training)
    return [found[id(row)] for row in rows]


def _pad(tokenizer: Any) -> int:
    """Return the id that stands behind texts: transformers looks for the last one that is another."""
    return int(tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id)


def _pairs(tokenizer: Any, examples: Sequence[Preference]) -> list[tuple[Asked, Asked]]:
    said = [(one.prompt, answer, one.origin) for one in examples for answer in (one.chosen, one.rejected)]
    answers = asked.answers(tokenizer, said)
    return list(zip(answers[::2], answers[1::2], strict=True))
