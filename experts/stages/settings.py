"""The settings of each stage: those of every training, and its own."""

from dataclasses import dataclass, field
from typing import Any, Literal

from moehub.card import LOW_RANK
from moehub.experts.settings import TrainConfig


@dataclass(frozen=True)
class PreferenceConfig(TrainConfig):
    """Settings of `dpo` and `kto`."""

    learning_rate: float = 5e-5
    """At its highest, after the warmup."""
    holdout: float = 0.1
    """Share of the preferences that is not trained on but measured on."""
    beta: float = 0.1
    """How strongly the policy is held to where it began (Rafailov et al. 2023, equation 7)."""
    loss: Literal["sigmoid", "ipo", "hinge"] = "sigmoid"
    """What `dpo` minimises; `kto` has one loss of its own."""

    def _rules(self) -> dict[str, tuple[bool, str]]:
        return {**super()._rules(), "beta": (0 < self.beta < float("inf"), "above 0"), **_low_rank(self)}


@dataclass(frozen=True)
class RewardConfig(TrainConfig):
    """Settings of `reward`."""

    learning_rate: float = 1e-4
    """At its highest, after the warmup."""
    holdout: float = 0.1
    """Share of the preferences that is not trained on but measured on."""
    center: float = 0.01
    """Keeps rewards near zero: the weight of their sum's square (Eisenstein et al. 2023, equation 2); 0 does not."""

    def _rules(self) -> dict[str, tuple[bool, str]]:
        return {**super()._rules(), "center": (0 <= self.center < float("inf"), "0 or more"), **_low_rank(self)}


@dataclass(frozen=True)
class ReinforceConfig(TrainConfig):
    """Settings of `rl`: a clipped policy update whose baseline is the other answers to the same prompt."""

    learning_rate: float = 2e-5
    """At its highest, after the warmup."""
    schedule: Literal["cosine", "linear", "constant"] = "constant"
    """How the learning rate falls after the warmup."""
    batch_size: int = 32
    """Answers in one optimizer step, on each process: `generations` to each prompt."""
    holdout: float = 0.1
    """Share of the prompts that is not trained on but measured on."""
    holdout_prompts: int = 64
    """Most prompts that are measured on."""
    rewards: dict[str, Any] = field(default_factory=dict, hash=False)
    """Name → weight, or name → `weight` and the reward's own settings (docs/rewards.md)."""
    algorithm: Literal["grpo", "rloo"] = "grpo"
    """What the advantage of an answer is: its reward less the group's mean, over the group's deviation (GRPO, Shao et
    al. 2024), or less the mean of the others (RLOO, Ahmadian et al. 2024)."""
    generations: int = 8
    """Answers to each prompt; divides `batch_size`."""
    max_new_tokens: int = 128
    """Tokens of an answer, at most."""
    temperature: float = 1.0
    """Of sampling, in training and measuring."""
    top_p: float = 1.0
    """Of sampling: only the most probable tokens with this total probability are drawn from."""
    beta: float = 0.04
    """Weight of the KL divergence to where the policy began; 0 lets it go anywhere."""
    epsilon: float = 0.2
    """A token's probability ratio to the policy that sampled it is clipped to 1 ± this."""
    iterations: int = 1
    """Updates from the same answers."""
    max_kl: float = 1.0
    """The training ends when the KL divergence to the start is above this, in nats per token."""
    min_entropy: float = 0.01
    """The training ends when the entropy of the next token is below this, in nats: the policy says one thing only."""
    max_growth: float = 4.0
    """The training ends when answers are this many times longer, or shorter, than they were in the first steps."""

    def _rules(self) -> dict[str, tuple[bool, str]]:
        whole = self.generations > 0 and self.batch_size % self.generations == 0
        parts = self.batch_size // self.accumulation if self.accumulation else 0
        return {
            **super()._rules(),
            "generations": (
                self.generations >= 2 and whole,
                f"at least 2, and a divisor of batch_size = {self.batch_size}",
            ),
            "batch_size": (parts >= 1, "at least 1"),
            "holdout_prompts": (self.holdout_prompts >= 1, "at least 1"),
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "temperature": (0 < self.temperature < float("inf"), "above 0: answers to one prompt have to differ"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "beta": (0 <= self.beta < float("inf"), "0 or more"),
            "epsilon": (0 < self.epsilon < 1, "between 0 and 1"),
            "iterations": (self.iterations >= 1, "at least 1"),
            "max_kl": (self.max_kl > 0, "above 0"),
            "min_entropy": (self.min_entropy >= 0, "0 or more"),
            "max_growth": (self.max_growth > 1, "above 1"),
            "rewards": (bool(self.rewards), "at least one, as in --set rewards='{exact: 1}'"),
            **_low_rank(self),
        }


def _low_rank(config: TrainConfig) -> dict[str, tuple[bool, str]]:
    return {"method": (config.method in LOW_RANK, f"{', '.join(LOW_RANK[:-1])} or {LOW_RANK[-1]} in this stage")}
