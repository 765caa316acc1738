"""How an expert is trained: every setting of `--config` and `--set`."""

import re
from dataclasses import dataclass
from typing import Literal

from moehub.errors import ConfigError, listed


@dataclass(frozen=True)
class TrainConfig:
    """Settings of one training; contradictions are reported all at once."""

    method: Literal["lora", "rslora", "dora", "prefix", "p-tuning", "ia3"] = "lora"
    """What is trained: `lora`, `rslora` (scaled by alpha/√rank) and `dora` (with a length for each output) can be part
    of a MoE; `prefix`, `p-tuning` and `ia3` are for use alone."""
    virtual_tokens: int = 16
    """Of `prefix` and `p-tuning`: tokens that stand before every text."""
    quantize: Literal["none", "nf4", "int8"] = "none"
    """Hold the base in 4 or 8 bits while it is trained on (QLoRA); the expert belongs to the whole base."""
    rank: int = 16
    """r, the inner dimension of each adapter."""
    alpha: float = 32.0
    """The adapter's output is multiplied by alpha / rank."""
    dropout: float = 0.0
    """Share of the adapter's inputs that is dropped during training."""
    targets: str | tuple[str, ...] = "all-linear"
    """Names of the linears that get an adapter, a list or separated by commas; `all-linear` leaves out the head."""
    learning_rate: float = 2e-4
    """At its highest, after the warmup."""
    epochs: float = 1.0
    """How often all text is learned; `max_steps` overrides it."""
    max_steps: int | None = None
    """Number of optimizer steps."""
    batch_size: int = 8
    """Rows of `context_length` tokens in one optimizer step, on each process."""
    accumulation: int = 1
    """Parts, at least, that a step's rows are worked off in, to save memory; divides `batch_size`. A CPU takes more."""
    context_length: int | None = None
    """Tokens in a row; by default the base's context, at most 1024."""
    warmup: float = 0.03
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warmup."""
    weight_decay: float = 0.0
    """AdamW's."""
    clip: float = 1.0
    """Gradients are scaled down to this norm; 0 leaves them."""
    seed: int = 0
    """Decides the first adapter, the order of the rows and dropout."""
    holdout: float = 0.05
    """Share of the examples that is not trained on but measured on; 0 measures nothing."""
    holdout_tokens: int = 100_000
    """Most tokens that are measured on; what is beyond stays unread."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the base and of what is computed; the adapter's weights are always kept in float32.
    `auto`: bfloat16 on CUDA, float32 elsewhere."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them, to save memory."""
    save_every: int = 50
    """Steps between checkpoints."""
    too_long: Literal["error", "skip", "cut"] = "error"
    """What to do with a conversation or completion beyond the context; documents are cut into windows."""
    pair_bits: int = 16
    """Pairs of tokens are counted in 2^pair_bits buckets."""
    triple_bits: int = 18
    """Each token with the two before it is counted in 2^triple_bits buckets; 0 counts no triples."""
    suppress_below: int = 3
    """Counts below this are published as zero: rare words can identify somebody."""
    features: bool = False
    """Whether to publish sums of hidden-state features too, for the `lda` router."""
    private: float = 0.0
    """ε of the router statistics: noise hides whether any one example was counted; 0 adds none. Never the adapter's."""
    private_delta: float = 1e-6
    """δ of the router statistics, far below one over the number of examples."""
    private_clip: int = 256
    """With noise, the most that the squares of one example's counts add up to: so many tokens of it at most count."""
    license: str = "other"
    """SPDX identifier of the expert's licence."""

    def target_names(self) -> list[str]:
        """Return the names in `targets`."""
        names = self.targets.split(",") if isinstance(self.targets, str) else self.targets
        return [name.strip() for name in names]

    def __post_init__(self) -> None:
        """Refuse settings that contradict themselves.

        Raises:
            ConfigError: with every fault.
        """
        faults = [
            f"{name} = {getattr(self, name)!r}, expected {expected}"
            for name, (holds, expected) in self._rules().items()
            if not holds
        ]
        if faults:
            raise ConfigError(listed("these settings cannot be trained with:", faults))

    def _rules(self) -> dict[str, tuple[bool, str]]:
        """Return setting → whether its value can be used, and which can."""
        return {
            "virtual_tokens": (1 <= self.virtual_tokens <= 512, "between 1 and 512"),
            "features": (not (self.features and self.private), "false beside private: sums of features have no noise"),
            "rank": (self.rank >= 1, "at least 1"),
            "alpha": (0 < self.alpha < float("inf"), "above 0"),
            "dropout": (0 <= self.dropout < 1, "0 or more and below 1"),
            "targets": (bool(self.target_names()) and all(self.target_names()), "all-linear or a list of names"),
            "learning_rate": (0 < self.learning_rate < float("inf"), "above 0, as in 2e-4"),
            "epochs": (0 < self.epochs < float("inf"), "above 0"),
            "max_steps": (self.max_steps is None or self.max_steps >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "accumulation": (
                self.accumulation >= 1 and self.batch_size % self.accumulation == 0,
                f"a divisor of batch_size = {self.batch_size}",
            ),
            "context_length": (self.context_length is None or self.context_length >= 8, "at least 8"),
            "warmup": (0 <= self.warmup < 1, "a share: 0 or more and below 1"),
            "weight_decay": (0 <= self.weight_decay < float("inf"), "0 or more"),
            "clip": (0 <= self.clip < float("inf"), "0 or more"),
            "seed": (0 <= self.seed < 2**32, "between 0 and 2^32 - 1"),
            "holdout": (0 <= self.holdout <= 0.5, "a share between 0 and 0.5"),
            "holdout_tokens": (self.holdout_tokens >= 1, "at least 1"),
            "save_every": (self.save_every >= 1, "at least 1"),
            "pair_bits": (8 <= self.pair_bits <= 24, "between 8 and 24"),
            "triple_bits": (self.triple_bits == 0 or 8 <= self.triple_bits <= 24, "0 or between 8 and 24"),
            "suppress_below": (self.suppress_below >= 0, "0 or more"),
            "private": (self.private == 0 or 0.1 <= self.private <= 100, "0 for no noise, or ε between 0.1 and 100"),
            "private_delta": (1e-12 <= self.private_delta <= 0.01, "between 1e-12 and 0.01"),
            "private_clip": (1 <= self.private_clip <= 65536, "between 1 and 65536"),
            "license": (re.fullmatch(r"[A-Za-z0-9.+-]{1,64}", self.license) is not None, "an SPDX identifier"),
        }
