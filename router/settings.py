"""The settings of a router, as they stand in a MoE's `config.json` under `router`."""

import dataclasses
import math
from dataclasses import dataclass

from moehub.errors import ConfigError, listed


@dataclass(frozen=True)
class RouterSettings:
    """How the gate is made from the contributors' statistics, and how it acts."""

    method: str = "evidence"
    """A registered method, or several joined by + whose evidence is multiplied."""
    top_k: int = 2
    """Experts per token, at most; the null expert counts as one."""
    threshold: float = 0.05
    """Gate weights below this are dropped."""
    kappa: float = 0.25
    """Tempers the counts' evidence: that of neighbouring tokens is correlated."""
    rho: float = 0.02
    """Chance that a restless text changes its author at a token."""
    calm_rho: float = 0.0005
    """The same of a calm text; the gate believes in one or the other as far as it foretells the text."""
    pace_change: float = 0.002
    """Chance that a calm text becomes restless at a token, or a restless one calm."""
    unigram_strength: float = 500.0
    """Pseudo-counts from the null's distribution, for tokens."""
    pair_strength: float = 30_000.0
    """The same for pairs of tokens."""
    triple_strength: float = 300_000.0
    """The same for triples."""
    least_count: float = 0.5
    """Pseudo-counts that everything has at least: what chance alone may bring."""
    pair_weight: float = 0.67
    """Weight of a pair's evidence beside its token's."""
    triple_weight: float = 1.5
    """Weight of a triple's evidence beside its token's."""
    null_margin: float = 0.0
    """Nats a token by which an expert may explain a text worse than generic text does and still answer."""
    lda_weight: float = 0.05
    """Weight of the hidden states' evidence at each token (their smoothing spans about ten)."""
    lda_shrinkage: float = 0.01
    """Share of the mean variance mixed into the pooled covariance."""
    likelihood_weight: float = 0.6
    """Weight of the experts' own likelihood at each token."""
    arrow_temperature: float = 1.0
    """Softmax temperature of the `arrow` router."""

    def __post_init__(self) -> None:
        """Refuse settings that no gate can obey."""
        faults = [
            f"{name} = {getattr(self, name)}, expected {expected}"
            for name, holds, expected in (
                ("top_k", self.top_k >= 1, "1 or more"),
                ("threshold", 0 <= self.threshold < 1, "0 or more and below 1"),
                *((name, 0 < getattr(self, name) < 1, "between 0 and 1") for name in _CHANCES),
                ("lda_shrinkage", 0 < self.lda_shrinkage <= 1, "above 0 and at most 1"),
                *((name, 0 <= getattr(self, name) < math.inf, "a finite number, 0 or more") for name in _WEIGHTS),
                *((name, 0 < getattr(self, name) < math.inf, "a finite number above 0") for name in _POSITIVE),
            )
            if not holds
        ]
        if faults:
            raise ConfigError(listed("these router settings cannot be used:", faults))

    @property
    def rates(self) -> tuple[float, ...]:
        """The switching rates that the gate weighs against each other."""
        return (self.calm_rho, self.rho)

    def to_dict(self) -> dict[str, str | int | float]:
        """Return the settings as they are stored."""
        return dataclasses.asdict(self)


_CHANCES = ("rho", "calm_rho", "pace_change")
_WEIGHTS = ("pair_weight", "triple_weight", "null_margin")
_STRENGTHS = ("unigram_strength", "pair_strength", "triple_strength", "least_count")
_POSITIVE = ("kappa", *_STRENGTHS, "lda_weight", "likelihood_weight", "arrow_temperature")
