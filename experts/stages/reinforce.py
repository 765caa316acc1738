"""Reinforcement: the policy answers prompts, rewards say how good that was, and a clipped update makes it likelier.

The update is PPO's (Schulman et al. 2017, equation 7), with the other answers to the same prompt in the place of a
critic: GRPO or RLOO, through TRL. It is held to where the stage began by a KL divergence, and ended where it collapses.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainingArguments
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from moehub.answering.answerer import Sampling
from moehub.answering.local import Local
from moehub.errors import ConfigError, DataError, TrainingError
from moehub.experts import loop, rewards
from moehub.experts.examples import Task, digest, split
from moehub.experts.material import context_of
from moehub.experts.rewards import Opener, Weighted
from moehub.experts.stages import asked
from moehub.experts.stages.library import LibraryStage, Ours
from moehub.experts.stages.settings import ReinforceConfig
from moehub.experts.stages.stage import Measurement
from moehub.experts.tokens import Tokens
from moehub.experts.watch import Watch

_STEPS = 5
"""Of a running median that a guard looks at: one step's number is noise."""


class ReinforceStage(LibraryStage[ReinforceConfig]):
    """Prompts, and what is asked of their answers."""

    kind = "rl"

    def __init__(
        self,
        tokenizer: Any,
        tasks: Sequence[Task],
        config: ReinforceConfig,
        *,
        longest: int,
        opener: Opener,
    ) -> None:
        """Make the prompts and the rewards ready.

        Args:
            tokenizer: the base's.
            tasks: to train on and to measure on.
            config: says how.
            longest: the base's own context in tokens.
            opener: opens the models that rewards ask.

        Raises:
            ConfigError: a reward cannot be made, or prompts and answers are more than the base takes.
            DataError: there are too few prompts, or one is too long.
        """
        self.config, self.tokenizer = config, tokenizer
        self.rewards = rewards.make(config.rewards, opener=opener)
        rewards.check(self.rewards, tasks)
        self.context_length = context_of(config, longest)
        if config.max_new_tokens >= self.context_length:
            raise ConfigError(
                f"max_new_tokens = {config.max_new_tokens} leaves no room for a prompt in a context of "
                f"{self.context_length} tokens: set a smaller one"
            )
        self.left_out: list[str] = []
        training, held = split(self._fitting(tasks), config.holdout)
        self._training, self._held = training, sorted(held, key=digest)[: config.holdout_prompts]
        ids = asked.prompts(tokenizer, self._prompts(training))
        self._ids = {f"{place}": each for place, each in enumerate(ids)}
        needed = config.batch_size // config.generations
        if len(self._ids) < needed:
            raise DataError(
                f"there are {len(self._ids)} different prompts to train on, and a step takes {needed} "
                f"(batch_size = {config.batch_size} over generations = {config.generations}): give more prompts, or "
                "set a smaller batch_size"
            )
        self.examples, self.held_out_examples = len(training), len(self._held)
        self.guard = Collapse(config)
        self.documents = [
            Tokens(torch.tensor(ids), torch.ones(len(ids), dtype=torch.bool), divisible=False, closed=False, origin="")
            for ids in self._ids.values()
        ]

    def _fitting(self, tasks: Sequence[Task]) -> list[Task]:
        """Return the tasks whose prompt leaves room for an answer.

        Raises:
            DataError: `too_long` is `error` and one does not.
        """
        room = self.context_length - self.config.max_new_tokens
        sizes = [len(ids) for ids in asked.prompts(self.tokenizer, self._prompts(tasks))]
        self.left_out = [task.origin for task, size in zip(tasks, sizes, strict=True) if size > room]
        if self.left_out and self.config.too_long == "error":
            raise DataError(
                f"{self.left_out[0]} is longer than the {room} tokens that max_new_tokens = "
                f"{self.config.max_new_tokens} leaves of the context ({len(self.left_out)} of {len(tasks)} prompts "
                f"are, the longest has {max(sizes)}): --set too_long=skip, a larger context_length, or shorter answers"
            )
        return [task for task, size in zip(tasks, sizes, strict=True) if size <= room]

    @staticmethod
    def _prompts(tasks: Sequence[Task]) -> list[Any]:
        return [task.prompt for task in tasks]

    def arguments(self, folder: Path) -> TrainingArguments:
        """Return the trainer's settings."""
        config = self.config
        own: dict[str, Any] = {
            "num_generations": config.generations,
            "max_completion_length": config.max_new_tokens,
            "temperature": config.temperature,
            "top_p": config.top_p,
            "top_k": 0,
            "beta": config.beta,
            "epsilon": config.epsilon,
            "num_iterations": config.iterations,
            "reward_weights": [one.weight for one in self.rewards],
            "disable_dropout": False,
            "gradient_checkpointing": config.gradient_checkpointing,
            "bf16": False,
        }
        kind = GRPOConfig if config.algorithm == "grpo" else RLOOConfig
        settings = loop.arguments_of(kind, folder, config, **own)
        settings.max_steps = self.steps(settings.world_size)
        return settings

    def steps(self, processes: int) -> int:
        """Return the number of optimizer steps."""
        if self.config.max_steps is not None:
            return self.config.max_steps
        prompts = self.config.batch_size * processes // self.config.generations
        return max(1, round(self.config.epochs * len(self._training) / prompts)) * self.config.iterations

    def measure(self, model: Any) -> Measurement | None:
        """Return the mean reward of one sampled answer to each prompt that was held out."""
        if not self._held:
            return None
        sampling = Sampling(self.config.max_new_tokens, self.config.temperature, self.config.top_p, self.config.seed)
        answers = Local(model, self.tokenizer, "policy").answer(self._prompts(self._held), sampling)
        scored = rewards.combine(self.rewards, self._held, [answer.text for answer in answers])
        return Measurement("reward", sum(scored.total) / len(scored.total), len(answers))

    def trainer(self, model: Any, settings: TrainingArguments, watch: Watch) -> Any:
        """Return TRL's trainer of policies."""
        rows = [{"prompt": f"{place}", "place": place} for place, _ in enumerate(self._training)]
        kind = _Grpo if self.config.algorithm == "grpo" else _Rloo
        made = kind(
            model=model,
            args=settings,
            reward_funcs=[self._function(one) for one in self.rewards],
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer,
            callbacks=[watch],
        )
        made.prompt_ids = self._ids
        return made

    def _function(self, one: Weighted) -> Callable[..., list[float | None]]:
        """Return a reward as TRL calls it; several ask one after another, and each has its own curve."""

        def function(*, completions: Sequence[str], place: Sequence[int], **_: Any) -> list[float | None]:
            tasks = [self._training[index] for index in place]
            return rewards.combine([one], tasks, completions).parts[one.label]

        function.__name__ = one.label.replace("/", "-")
        return function


class Collapse:
    """Ends a training whose policy collapses: far from its start, sure of everything, or of runaway length."""

    def __init__(self, config: ReinforceConfig) -> None:
        """Look at the median of the latest steps, as `config` says."""
        self.config = config
        self._latest: dict[str, deque[float]] = {}
        self._first_length: list[float] = []

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Take in the numbers of a step.

        Raises:
            TrainingError: the policy collapses; the sentence says by what.
        """
        for name in ("kl", "entropy", "length"):
            if name in values:
                self._latest.setdefault(name, deque(maxlen=_STEPS)).append(values[name])
        if "length" in values and len(self._first_length) < _STEPS:
            self._first_length.append(values["length"])
        reason = self._reason({name: median(found) for name, found in self._latest.items() if len(found) == _STEPS})
        if reason is not None:
            raise TrainingError(
                f"the policy collapses: in the {_STEPS} steps up to step {step} {reason}. Lower learning_rate, raise "
                "beta, or look at what the rewards reward; checkpoints are kept, and --resume with the same settings "
                "goes on from the last one"
            )

    def _reason(self, latest: Mapping[str, float]) -> str | None:
        config = self.config
        if latest.get("kl", 0.0) > config.max_kl:
            return f"it is {latest['kl']:.3g} nats per token from its start, above max_kl = {config.max_kl:g}"
        if latest.get("entropy", config.min_entropy) < config.min_entropy:
            return f"its entropy is {latest['entropy']:.3g} nats, below min_entropy = {config.min_entropy:g}"
        if "length" not in latest or not (first := median(self._first_length)):
            return None
        grown = latest["length"] / first
        if not 1 / config.max_growth <= grown <= config.max_growth:
            return (
                f"its answers are {latest['length']:.4g} tokens long, {grown:.2g} times what they were, beyond "
                f"max_growth = {config.max_growth:g}"
            )
        return None


class _Prompted(Ours):
    """Looks prompts up that were made of token ids before."""

    prompt_ids: Mapping[str, list[int]]

    def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [self.prompt_ids[prompt] for prompt in prompts], None, {}


class _Grpo(_Prompted, GRPOTrainer):
    """GRPO on our token ids."""


class _Rloo(_Prompted, RLOOTrainer):
    """RLOO on our token ids."""
