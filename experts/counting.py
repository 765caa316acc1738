"""The router statistics of a training's text."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from moehub.experts import features, privacy, statistics
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics
from moehub.experts.tokens import Tokens


def count(
    documents: Sequence[Tokens], config: TrainConfig, tokenizer: str, vocabulary: int, embedding: Tensor | None
) -> Statistics:
    """Return the statistics of the training split, with noise and small counts suppressed as `config` says.

    Args:
        documents: what is trained on; what is held out is not counted.
        config: says how, and whether feature sums are wanted.
        tokenizer: the tokenizer's digest.
        vocabulary: V, the number of its ids.
        embedding: [V, d], the base's input embedding; only feature sums need it.
    """
    seen = [one.seen for one in documents]
    counting: Callable[..., Statistics] = statistics.count
    if config.private:
        counting = partial(privacy.count, epsilon=config.private, delta=config.private_delta, clip=config.private_clip)
    counted = counting(
        seen,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        pair_bits=config.pair_bits,
        triple_bits=config.triple_bits,
    )
    if config.features and embedding is not None:
        sums = features.sums(seen, embedding, features.recipe_for(embedding.shape[1]))
        counted = dataclasses.replace(counted, features=sums)
    return counted.suppress(config.suppress_below)
