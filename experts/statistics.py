"""Router statistics: how often each token, and each hashed pair of tokens, occurs in one contributor's text.

Integers only, so that sums do not depend on order: nodes of one domain add theirs, and the gate that is
made from them is the same to the bit. They are all that leaves a contributor besides the adapter.

Shapes: V vocabulary, P = 2^pair_bits buckets, D dimensions of the features.
"""

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from moehub import card
from moehub.errors import ExpertError

STATISTICS_FILE = card.STATISTICS_FILE
FORMAT = 1
_METADATA = "moehub"
_MULTIPLIER = 1000003


@dataclass(frozen=True)
class FeatureSums:
    """Sums over int8 features of hidden states, for the `lda` router; exact because they are integers."""

    recipe: str
    """How the features were made (see `moehub.experts.features`): sums of other recipes cannot be added."""
    count: int
    """n, the number of tokens."""
    sum: Tensor
    """Σ x, int64 [D]."""
    gram: Tensor
    """Σ x xᵀ, int64 [D, D]."""

    def __add__(self, other: "FeatureSums") -> "FeatureSums":
        if self.recipe != other.recipe:
            raise ExpertError(f"feature sums of recipe {self.recipe!r} cannot be added to {other.recipe!r}")
        return FeatureSums(self.recipe, self.count + other.count, self.sum + other.sum, self.gram + other.gram)


@dataclass(frozen=True)
class Statistics:
    """Token and pair counts of one contributor's text."""

    tokenizer: str
    """`moehub.base.tokenizer_digest`: counts of another tokenizer mean nothing."""
    unigrams: Tensor
    """int64 [V]."""
    pairs: Tensor
    """int64 [P], indexed by `pair_bucket`."""
    suppressed_below: int = 0
    """Counts below this were set to zero before publication."""
    features: FeatureSums | None = None

    @property
    def vocabulary(self) -> int:
        """V, the number of token ids."""
        return len(self.unigrams)

    @property
    def pair_bits(self) -> int:
        """log2 of the number of pair buckets."""
        return len(self.pairs).bit_length() - 1

    def __add__(self, other: "Statistics") -> "Statistics":
        if (self.tokenizer, self.unigrams.shape, self.pairs.shape) != (
            other.tokenizer,
            other.unigrams.shape,
            other.pairs.shape,
        ):
            raise ExpertError("statistics of different tokenizers or pair buckets cannot be added: count again")
        both = self.features is not None and other.features is not None
        return Statistics(
            self.tokenizer,
            self.unigrams + other.unigrams,
            self.pairs + other.pairs,
            max(self.suppressed_below, other.suppressed_below),
            self.features + other.features if both else None,  # type: ignore[operator]
        )

    def suppress(self, threshold: int) -> "Statistics":
        """Return the statistics without counts below `threshold`: rare words can identify somebody."""
        return dataclasses.replace(
            self,
            unigrams=self.unigrams.where(self.unigrams >= threshold, 0),
            pairs=self.pairs.where(self.pairs >= threshold, 0),
            suppressed_below=max(threshold, self.suppressed_below),
        )

    def save(self, path: Path) -> None:
        """Write the statistics as safetensors; counts are stored as pairs of index and count."""
        tensors: dict[str, Tensor] = {}
        for name, counts in (("unigrams", self.unigrams), ("pairs", self.pairs)):
            index = counts.nonzero().flatten()
            tensors[f"{name}.index"] = index.to(torch.int32)
            tensors[f"{name}.count"] = counts[index]
        facts: dict[str, str | int] = {
            "format": FORMAT,
            "tokenizer": self.tokenizer,
            "vocabulary": self.vocabulary,
            "pair_bits": self.pair_bits,
            "suppressed_below": self.suppressed_below,
        }
        if self.features is not None:
            tensors["features.sum"], tensors["features.gram"] = self.features.sum, self.features.gram
            facts |= {"features.recipe": self.features.recipe, "features.count": self.features.count}
        # One entry: safetensors writes several in an order of its own, and equal statistics are to be equal bytes.
        save_file(tensors, path, metadata={_METADATA: json.dumps(facts, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Return the statistics stored in `path`.

        Raises:
            ExpertError: the file is missing, truncated, of another format, or its counts cannot be counts.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = json.loads((file.metadata() or {})[_METADATA])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if metadata.get("format") != FORMAT:
                raise ExpertError(f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}: update moehub")
            vocabulary, pair_bits = int(metadata["vocabulary"]), int(metadata["pair_bits"])
            features = None
            if "features.recipe" in metadata:
                features = FeatureSums(
                    metadata["features.recipe"],
                    int(metadata["features.count"]),
                    tensors["features.sum"],
                    tensors["features.gram"],
                )
            return cls(
                metadata["tokenizer"],
                _dense(tensors, "unigrams", vocabulary),
                _dense(tensors, "pairs", 1 << pair_bits),
                int(metadata["suppressed_below"]),
                features,
            )
        except (OSError, SafetensorError, KeyError, ValueError, IndexError, RuntimeError) as error:
            raise ExpertError(
                f"{path} holds no router statistics ({error}): pull the expert again, or train it again"
            ) from error


def pair_bucket(previous: Tensor, current: Tensor, buckets: int) -> Tensor:
    """Return the bucket of each pair of neighbouring token ids: int64, the shape of the inputs.

    The hash is part of the format: (previous · 1000003 + current) mod buckets.
    """
    return (previous * _MULTIPLIER + current) % buckets


def count(documents: Iterable[Tensor], *, tokenizer: str, vocabulary: int, pair_bits: int) -> Statistics:
    """Return the statistics of tokenised documents (int64 [T] each); no pair spans two documents.

    Raises:
        ExpertError: a token id is outside the vocabulary.
    """
    buckets = 1 << pair_bits
    unigrams, pairs = torch.zeros(vocabulary, dtype=torch.int64), torch.zeros(buckets, dtype=torch.int64)
    for ids in documents:
        if len(ids) and int(ids.max()) >= vocabulary:
            raise ExpertError(f"token id {int(ids.max())} is outside the tokenizer's {vocabulary} ids")
        unigrams += torch.bincount(ids, minlength=vocabulary)
        pairs += torch.bincount(pair_bucket(ids[:-1], ids[1:], buckets), minlength=buckets)
    return Statistics(tokenizer, unigrams, pairs)


def _dense(tensors: dict[str, Tensor], name: str, size: int) -> Tensor:
    index, counts = tensors[f"{name}.index"].long(), tensors[f"{name}.count"]
    if counts.dtype != torch.int64 or index.shape != counts.shape or bool((counts < 0).any()):
        raise ValueError(f"{name} are not non-negative int64 counts")
    return torch.zeros(size, dtype=torch.int64).index_put((index,), counts)
