"""The router statistics of a training's text."""

import dataclasses

from torch import Tensor

from moehub.experts import features, statistics
from moehub.experts.material import Material
from moehub.experts.settings import TrainConfig
from moehub.experts.statistics import Statistics


def count(
    material: Material, config: TrainConfig, tokenizer: str, vocabulary: int, embedding: Tensor | None
) -> Statistics:
    """Return the statistics of the training split, small counts suppressed as `config` says.

    Args:
        material: what is trained on; what is held out is not counted.
        config: says how, and whether feature sums are wanted.
        tokenizer: the tokenizer's digest.
        vocabulary: V, the number of its ids.
        embedding: [V, d], the base's input embedding; only feature sums need it.
    """
    documents = [one.seen for one in material.documents]
    counted = statistics.count(documents, tokenizer=tokenizer, vocabulary=vocabulary, pair_bits=config.pair_bits)
    if config.features and embedding is not None:
        sums = features.sums(documents, embedding, features.recipe_for(embedding.shape[1]))
        counted = dataclasses.replace(counted, features=sums)
    return counted.suppress(config.suppress_below)
