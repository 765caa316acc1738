"""The ways in which a contributor may publish its counts."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from moehub.experts import privacy, statistics
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics

Publish = Callable[[Sequence[Tensor], int], Statistics]
"""Documents, int64 [T] each, and V → the statistics as they are published."""
_USUAL = TrainConfig()
BITS = {"pair_bits": _USUAL.pair_bits, "triple_bits": _USUAL.triple_bits}


def protections() -> dict[str, Publish]:
    """Return every way by name, the least protected first."""
    noisy = {f"noise, ε = {epsilon:g}": partial(_noisy, epsilon) for epsilon in (8.0, 3.0, 1.0)}
    return {
        "nothing suppressed": partial(_suppressed, 0),
        f"below {_USUAL.suppress_below} suppressed (default)": partial(_suppressed, _USUAL.suppress_below),
        "below 10 suppressed": partial(_suppressed, 10),
        **noisy,
    }


def exact(documents: Sequence[Tensor], vocabulary: int, *, clip: int = 0) -> Statistics:
    """Return the counts themselves, each document clipped where asked for."""
    return statistics.count(documents, tokenizer="bench", vocabulary=vocabulary, clip=clip, **BITS)


def _suppressed(threshold: int, documents: Sequence[Tensor], vocabulary: int) -> Statistics:
    return exact(documents, vocabulary).suppress(threshold)


def _noisy(epsilon: float, documents: Sequence[Tensor], vocabulary: int) -> Statistics:
    counted = privacy.count(
        documents,
        tokenizer="bench",
        vocabulary=vocabulary,
        epsilon=epsilon,
        delta=_USUAL.private_delta,
        clip=_USUAL.private_clip,
        **BITS,
    )
    return counted.suppress(_USUAL.suppress_below)
