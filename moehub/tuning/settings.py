"""How a gate is tuned: every setting of `--config` and `--set`."""

from dataclasses import dataclass
from typing import Literal

from moehub.errors import ConfigError, listed
from moehub.experts.settings import TrainConfig


@dataclass(frozen=True)
class TuneConfig:
    """Settings of one tuning; contradictions are reported all at once."""

    numbers: bool = True
    """Whether κ, ρ, the calm ρ, the chance to change pace and the weights of the evidence are learned.
    What stands at 0 is left alone."""
    correction: bool = True
    """Whether it is learned what embeddings say, a vector for each expert; a bias for each is always learned."""
    learning_rate: float = 0.02
    """Of the numbers, which move by shares of themselves, and of the biases, in nats; at its highest."""
    correction_rate: float = 0.003
    """Of the vectors."""
    expert_rate: float = 5e-5
    """Of the experts, where they are trained."""
    balance: float = 0.01
    """How much it counts that experts get unequal shares of the text."""
    z: float = 0.001
    """How much it counts that the gate's logits drift."""
    top_k: int | None = None
    """Experts per token while it is learned; by default the MoE's own. More reach experts that it is wrong about."""
    threshold: float = 0.0
    """Gate weights below this are dropped while it is learned: what is dropped learns nothing."""
    epochs: float = 1.0
    """How often all text is learned; `max_steps` overrides it."""
    max_steps: int | None = None
    """Number of optimizer steps."""
    batch_size: int = 8
    """Rows in one optimizer step."""
    part_tokens: int = 8192
    """Tokens of a step that are worked off at a time, to save memory."""
    context_length: int | None = None
    """Tokens in a row; by default the base's context, at most 1024."""
    warmup: float = 0.05
    """Share of the steps in which the learning rates rise."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rates fall after the warmup."""
    weight_decay: float = 0.0
    """AdamW's: how strongly what was learned is pulled back to where the gate began without tuning."""
    clip: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    seed: int = 0
    """Decides the order of the rows."""
    holdout: float = 0.1
    """Share of the examples that is not trained on but measured on."""
    holdout_tokens: int = 100_000
    """Most tokens that are measured on; what is beyond stays unread."""
    measurements: int = 4
    """How often the held-out text is measured on the way; the best state is kept, be it the one at the start."""
    too_long: Literal["error", "skip", "cut"] = "error"
    """What to do with a conversation or completion beyond the context; documents are cut into windows."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the base and what is computed. `auto`: bfloat16 on CUDA, unless experts are trained; else float32."""

    def material(self) -> TrainConfig:
        """Return how the text is split and fitted, as a training has it."""
        return TrainConfig(
            context_length=self.context_length,
            holdout=self.holdout,
            holdout_tokens=self.holdout_tokens,
            too_long=self.too_long,
        )

    def __post_init__(self) -> None:
        """Refuse settings that contradict themselves.

        Raises:
            ConfigError: with every fault.
        """
        rates = {name: getattr(self, name) for name in ("learning_rate", "correction_rate", "expert_rate")}
        rules = {
            **{name: (0 < rate < float("inf"), "above 0, as in 1e-3") for name, rate in rates.items()},
            "balance": (0 <= self.balance < float("inf"), "0 or more"),
            "z": (0 <= self.z < float("inf"), "0 or more"),
            "top_k": (self.top_k is None or self.top_k >= 1, "at least 1"),
            "threshold": (0 <= self.threshold < 1, "0 or more and below 1"),
            "epochs": (0 < self.epochs < float("inf"), "above 0"),
            "max_steps": (self.max_steps is None or self.max_steps >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "part_tokens": (self.part_tokens >= 1, "at least 1"),
            "context_length": (self.context_length is None or self.context_length >= 8, "at least 8"),
            "warmup": (0 <= self.warmup < 1, "a share: 0 or more and below 1"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "0 or more"),
            "clip": (0 <= self.clip < float("inf"), "0 or more"),
            "seed": (0 <= self.seed < 2**32, "between 0 and 2^32 - 1"),
            "holdout": (0 < self.holdout <= 0.5, "a share above 0 and at most 0.5: what is kept is decided by it"),
            "holdout_tokens": (self.holdout_tokens >= 1, "at least 1"),
            "measurements": (self.measurements >= 1, "at least 1"),
        }
        faults = [
            f"{name} = {getattr(self, name)!r}, expected {expected}"
            for name, (holds, expected) in rules.items()
            if not holds
        ]
        if faults:
            raise ConfigError(listed("these settings cannot be tuned with:", faults))
