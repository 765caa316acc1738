"""Router statistics: how often each token, and each hashed pair of tokens, occurs in one contributor's text.

Integers only, so that sums do not depend on order: nodes of one domain add theirs, and the gate that is
made from them is the same to the bit. They are all that leaves a contributor besides the adapter.

Shapes: V vocabulary, P = 2^pair_bits buckets, D dimensions of the features.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from moehub import card
from moehub.errors import ExpertError

Facts: TypeAlias = dict[str, str | int]
Array: TypeAlias = np.ndarray[Any, Any]

STATISTICS_FILE = card.STATISTICS_FILE
FORMAT = 1
_METADATA = "moehub"
_MULTIPLIER = 1000003
_TOGETHER = 1 << 20
_MOST_TOKENS = 1 << 24
_MOST_PAIR_BITS = 28
"""More would be a damaged file, or one that wants to fill a memory."""


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

    def to_arrays(self) -> tuple[Facts, dict[str, Array]]:
        """Return the statistics as they are stored and sent: facts, and counts as pairs of index and count."""
        facts: Facts = {
            "tokenizer": self.tokenizer,
            "vocabulary": self.vocabulary,
            "pair_bits": self.pair_bits,
            "suppressed_below": self.suppressed_below,
        }
        arrays: dict[str, Array] = {}
        for name, counts in (("unigrams", self.unigrams), ("pairs", self.pairs)):
            index = counts.nonzero().flatten()
            arrays[f"{name}.index"] = index.to(torch.int32).numpy()
            arrays[f"{name}.count"] = counts[index].numpy()
        if self.features is not None:
            for name, sums in (("sum", self.features.sum), ("gram", self.features.gram)):
                # safetensors writes the bytes as they lie.
                arrays[f"features.{name}"] = np.ascontiguousarray(sums.numpy())
            facts |= {"features.recipe": self.features.recipe, "features.count": self.features.count}
        return facts, arrays

    @classmethod
    def from_arrays(cls, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> "Statistics":
        """Return the statistics that `to_arrays` gave, or what somebody else says are some.

        Raises:
            ExpertError: they cannot be counts.
        """
        try:
            tensors = {name: torch.tensor(values) for name, values in arrays.items()}
            vocabulary, pair_bits = _sizes(facts)
            return cls(
                facts["tokenizer"],
                _dense(tensors, "unigrams", vocabulary),
                _dense(tensors, "pairs", 1 << pair_bits),
                facts["suppressed_below"],
                _features(tensors, facts),
            )
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ExpertError(f"these are no router statistics ({error}): count again") from error

    def save(self, path: Path) -> None:
        """Write the statistics as safetensors."""
        facts, arrays = self.to_arrays()
        # One entry: safetensors writes several in an order of its own, and equal statistics are to be equal bytes.
        save_file(arrays, path, metadata={_METADATA: json.dumps({"format": FORMAT, **facts}, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "Statistics":
        """Return the statistics stored in `path`.

        Raises:
            ExpertError: the file is missing, truncated, of another format, or its counts cannot be counts.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                facts = json.loads((file.metadata() or {})[_METADATA])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            if facts["format"] != FORMAT:
                raise ExpertError(f"{path} has format {facts['format']!r}, expected {FORMAT!r}: update moehub")
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _unreadable(path, error) from error
        try:
            return cls.from_arrays(facts, arrays)
        except ExpertError as error:
            raise _unreadable(path, error.__cause__ or error) from error


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
    for ids, begins in _together(documents):
        if int(ids.max()) >= vocabulary:
            raise ExpertError(f"token id {int(ids.max())} is outside the tokenizer's {vocabulary} ids")
        unigrams += torch.bincount(ids, minlength=vocabulary)
        inside = ~begins[1:]
        pairs += torch.bincount(pair_bucket(ids[:-1][inside], ids[1:][inside], buckets), minlength=buckets)
    return Statistics(tokenizer, unigrams, pairs)


def _together(documents: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the ids of many documents in one tensor, and where each begins: small ones alone cost V each."""
    held: list[Tensor] = []
    size = 0
    for ids in documents:
        if len(ids):
            held.append(ids)
            size += len(ids)
        if size >= _TOGETHER:
            yield _joined(held)
            held, size = [], 0
    if held:
        yield _joined(held)


def _joined(documents: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([0, *map(len, documents[:-1])])
    begins = torch.zeros(sum(map(len, documents)), dtype=torch.bool)
    begins[lengths.cumsum(0)] = True
    return torch.cat(documents), begins


def _unreadable(path: Path, why: BaseException) -> ExpertError:
    return ExpertError(f"{path} holds no router statistics ({why}): pull the expert again, or train it again")


def _sizes(facts: Mapping[str, Any]) -> tuple[int, int]:
    numbers = [facts[name] for name in ("vocabulary", "pair_bits", "suppressed_below")]
    if not isinstance(facts["tokenizer"], str) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"its metadata are {facts!r:.200}")
    vocabulary, pair_bits, _ = numbers
    if not 0 < vocabulary <= _MOST_TOKENS or pair_bits > _MOST_PAIR_BITS:
        raise ValueError(f"{vocabulary} tokens and 2^{pair_bits} buckets are out of range")
    return vocabulary, pair_bits


def _dense(tensors: dict[str, Tensor], name: str, size: int) -> Tensor:
    index, counts = tensors[f"{name}.index"].long(), tensors[f"{name}.count"]
    if counts.dtype != torch.int64 or index.ndim != 1 or index.shape != counts.shape or bool((counts < 0).any()):
        raise ValueError(f"{name} are not non-negative int64 counts")
    if bool((index[1:] <= index[:-1]).any()) or bool((index < 0).any()):
        raise ValueError(f"the indices of {name} are not in order")
    return torch.zeros(size, dtype=torch.int64).index_put((index,), counts)


def _features(tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> FeatureSums | None:
    if "features.recipe" not in facts:
        return None
    recipe, count = facts["features.recipe"], facts["features.count"]
    total, gram = tensors["features.sum"], tensors["features.gram"]
    square = total.ndim == 1 and gram.shape == (len(total), len(total))
    if not square or {total.dtype, gram.dtype} != {torch.int64} or type(count) is not int or count < 0:
        raise ValueError("the feature sums are not int64 sums of one count, a vector and a square")
    return FeatureSums(str(recipe), count, total, gram)
