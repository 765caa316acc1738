"""Router statistics: how often each token, and each hashed pair and triple, occurs in one contributor's text.

Integers only, so that sums do not depend on order: nodes of one domain add theirs, and the gate that is
made from them is the same to the bit. They are all that leaves a contributor besides the adapter.

Shapes: V vocabulary, P = 2^pair_bits and Q = 2^triple_bits buckets, N tokens, D dimensions of the features.
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from moehub import card, config
from moehub.card import Privacy
from moehub.errors import ConfigError, ExpertError

Facts: TypeAlias = dict[str, Any]
Array: TypeAlias = np.ndarray[Any, Any]

STATISTICS_FILE = card.STATISTICS_FILE
FORMAT = 1
_METADATA = "moehub"
_MULTIPLIER = 1000003
_CONTEXTS = 1 << 31
"""Buckets of the two tokens that a triple begins with: few enough for int64, too many to collide."""
_TOGETHER = 1 << 20
_MOST_TOKENS = 1 << 24
_MOST_FACES = 64
_MOST_BITS = 28
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
    """Counts of tokens, pairs and triples in one contributor's text."""

    tokenizer: str
    """`moehub.base.tokenizer_digest`: counts of another tokenizer mean nothing."""
    unigrams: Tensor
    """int64 [V]."""
    pairs: Tensor
    """int64 [P], indexed by `pair_bucket`."""
    suppressed_below: int = 0
    """Counts below this were set to zero before publication."""
    features: FeatureSums | None = None
    triples: Tensor | None = None
    """int64 [Q], indexed by `triple_bucket`; None where none were counted."""
    private: Privacy | None = None
    """What noise in the counts hides; None: there is none."""
    faces: tuple["Statistics", ...] = ()
    """Of generic text: counts of its parts, kind by kind (see `moehub.experts.faces`); of a contributor's, none."""

    @property
    def counts(self) -> dict[str, Tensor]:
        """Kind of counts → how often, of the kinds that were counted."""
        kinds = {"unigrams": self.unigrams, "pairs": self.pairs}
        return kinds if self.triples is None else kinds | {"triples": self.triples}

    @property
    def vocabulary(self) -> int:
        """V, the number of token ids."""
        return len(self.unigrams)

    @property
    def pair_bits(self) -> int:
        """log2 of the number of pair buckets."""
        return len(self.pairs).bit_length() - 1

    @property
    def triple_bits(self) -> int:
        """log2 of the number of triple buckets, 0 where no triples were counted."""
        return 0 if self.triples is None else len(self.triples).bit_length() - 1

    def __add__(self, other: "Statistics") -> "Statistics":
        mine, theirs = (
            (one.tokenizer, {name: len(counts) for name, counts in one.counts.items()}) for one in (self, other)
        )
        if mine != theirs:
            raise ExpertError("statistics of different tokenizers or buckets cannot be added: count again")
        if self.private is not None or other.private is not None:
            raise ExpertError("statistics with noise cannot be added, because it adds up: count all text together")
        both = self.features is not None and other.features is not None
        return dataclasses.replace(
            self.with_counts({kind: counts + other.counts[kind] for kind, counts in self.counts.items()}),
            suppressed_below=max(self.suppressed_below, other.suppressed_below),
            features=self.features + other.features if both else None,  # type: ignore[operator]
        )

    def with_counts(self, counts: Mapping[str, Tensor]) -> "Statistics":
        """Return the statistics with these counts by kind, as `counts` has them, in the place of their own."""
        return dataclasses.replace(
            self, unigrams=counts["unigrams"], pairs=counts["pairs"], triples=counts.get("triples"), faces=()
        )

    def suppress(self, threshold: int) -> "Statistics":
        """Return the statistics without counts below `threshold`: rare words can identify somebody."""
        kept = self.with_counts({kind: counts.where(counts >= threshold, 0) for kind, counts in self.counts.items()})
        faces = tuple(face.suppress(threshold) for face in self.faces)
        return dataclasses.replace(kept, suppressed_below=max(threshold, self.suppressed_below), faces=faces)

    def to_arrays(self) -> tuple[Facts, dict[str, Array]]:
        """Return the statistics as they are stored and sent: facts, and counts as index and count."""
        facts: Facts = {
            "tokenizer": self.tokenizer,
            "vocabulary": self.vocabulary,
            "pair_bits": self.pair_bits,
            "suppressed_below": self.suppressed_below,
        }
        if self.triples is not None:
            facts["triple_bits"] = self.triple_bits
        if self.private is not None:
            facts["private"] = dataclasses.asdict(self.private)
        if self.faces:
            facts["faces"] = len(self.faces)
        arrays = _sparse("", self.counts)
        for number, face in enumerate(self.faces):
            arrays |= _sparse(_face(number), face.counts)
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
            whole = _counted(facts, tensors, "")
            faces = tuple(_counted(facts, tensors, _face(number)) for number in range(_number_of_faces(facts)))
            return dataclasses.replace(whole, features=_features(tensors, facts), private=_private(facts), faces=faces)
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


def _face(number: int) -> str:
    return f"faces.{number}."


def _sparse(prefix: str, counts: Mapping[str, Tensor]) -> dict[str, Array]:
    """Return counts as index and count of what is not zero."""
    arrays: dict[str, Array] = {}
    for name, values in counts.items():
        index = values.nonzero().flatten()
        arrays[f"{prefix}{name}.index"] = index.to(torch.int32).numpy()
        arrays[f"{prefix}{name}.count"] = values[index].numpy()
    return arrays


def _counted(facts: Mapping[str, Any], tensors: dict[str, Tensor], prefix: str) -> Statistics:
    """Return the counts whose names begin with `prefix`."""
    counts = {name: _dense(tensors, f"{prefix}{name}", size) for name, size in sizes(facts).items()}
    return Statistics(
        facts["tokenizer"],
        counts["unigrams"],
        counts["pairs"],
        facts["suppressed_below"],
        triples=counts.get("triples"),
    )


def _number_of_faces(facts: Mapping[str, Any]) -> int:
    faces = facts.get("faces", 0)
    if type(faces) is not int or not 0 <= faces <= _MOST_FACES:
        raise ValueError(f"{faces!r} faces are out of range")
    return faces


def sizes(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return kind of counts → number of its buckets, as the metadata say."""
    numbers = [*(facts[name] for name in ("vocabulary", "pair_bits", "suppressed_below")), facts.get("triple_bits", 0)]
    if not isinstance(facts["tokenizer"], str) or not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"its metadata are {facts!r:.200}")
    vocabulary, pair_bits, _, triple_bits = numbers
    if not 0 < vocabulary <= _MOST_TOKENS or max(pair_bits, triple_bits) > _MOST_BITS:
        raise ValueError(f"{vocabulary} tokens, 2^{pair_bits} and 2^{triple_bits} buckets are out of range")
    return _buckets(vocabulary, pair_bits, triple_bits)


def pair_bucket(previous: Tensor, current: Tensor, buckets: int) -> Tensor:
    """Return the bucket of each pair of neighbouring token ids: int64, the shape of the inputs.

    The hash is part of the format: (previous · 1000003 + current) mod buckets.
    """
    return (previous * _MULTIPLIER + current) % buckets


def triple_bucket(before: Tensor, previous: Tensor, current: Tensor, buckets: int) -> Tensor:
    """Return the bucket of each token after the two before it: int64, the shape of the inputs.

    A document's first token has none before it and its second one: V stands for what is missing. The hash is
    part of the format: that of the pair of a context, itself a pair in 2^31 buckets, and the token.
    """
    return pair_bucket(pair_bucket(before, previous, _CONTEXTS), current, buckets)


def count(
    documents: Iterable[Tensor], *, tokenizer: str, vocabulary: int, pair_bits: int, triple_bits: int = 0, clip: int = 0
) -> Statistics:
    """Return the statistics of tokenised documents (int64 [T] each); nothing that is counted spans two documents.

    Args:
        documents: their tokens.
        tokenizer: its digest.
        vocabulary: V.
        pair_bits: log2 of the number of pair buckets.
        triple_bits: the same of triples; 0 counts none.
        clip: of each document count, kind by kind, the longest beginning whose counts have squares that add up to no
            more than this, so at most as many tokens; 0 counts all.

    Raises:
        ExpertError: a token id is outside the vocabulary.
    """
    sizes = _buckets(vocabulary, pair_bits, triple_bits)
    counts = {name: torch.zeros(size, dtype=torch.int64) for name, size in sizes.items()}
    for ids, begins in _together(documents):
        if int(ids.max()) >= vocabulary:
            raise ExpertError(f"token id {int(ids.max())} is outside the tokenizer's {vocabulary} ids")
        for name, (places, owners) in _places(ids, begins, sizes).items():
            counted = places[_beginnings(places, owners, sizes[name], clip)] if clip else places
            counts[name] += torch.bincount(counted, minlength=sizes[name])
    return Statistics(tokenizer, counts["unigrams"], counts["pairs"], triples=counts.get("triples"))


def _buckets(vocabulary: int, pair_bits: int, triple_bits: int) -> dict[str, int]:
    """Return kind of counts → number of its buckets."""
    sizes = {"unigrams": vocabulary, "pairs": 1 << pair_bits}
    return sizes | {"triples": 1 << triple_bits} if triple_bits else sizes


def _places(ids: Tensor, begins: Tensor, sizes: Mapping[str, int]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return kind of counts → the buckets that documents, one behind the other [N], count in, and which one does."""
    start, owners = sizes["unigrams"], begins.cumsum(0)
    previous = ids.roll(1).where(~begins, start)
    pairs = pair_bucket(previous[~begins], ids[~begins], sizes["pairs"])
    places = {"unigrams": (ids, owners), "pairs": (pairs, owners[~begins])}
    if "triples" in sizes:
        before = previous.roll(1).where(~begins, start)
        places["triples"] = (triple_bucket(before, previous, ids, sizes["triples"]), owners)
    return places


def _beginnings(places: Tensor, owners: Tensor, buckets: int, most: int) -> Tensor:
    """Return where the squares of a document's counts up to here add up to no more than `most`, bool [N].

    Args:
        places: buckets, document by document.
        owners: each one's document, ascending.
        buckets: how many there are.
        most: of the sum of squares.
    """
    order = (owners * buckets + places).argsort(stable=True)
    before = torch.empty_like(places).index_put((order,), _since((owners * buckets + places)[order]))
    # The n-th in a bucket raises the square of n − 1 to that of n: by 2n − 1.
    grown = 2 * before + 1
    total = grown.cumsum(0)
    earlier = (total - grown).where(_since(owners) == 0, 0).cummax(0).values
    return total - earlier <= most


def _since(values: Tensor) -> Tensor:
    """Return how many places before each one its run of equal values begins, int64 [N]."""
    every = torch.arange(len(values))
    begins = torch.ones(len(values), dtype=torch.bool)
    begins[1:] = values[1:] != values[:-1]
    return every - every.where(begins, 0).cummax(0).values


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


def _dense(tensors: dict[str, Tensor], name: str, size: int) -> Tensor:
    index, counts = tensors[f"{name}.index"].long(), tensors[f"{name}.count"]
    if counts.dtype != torch.int64 or index.ndim != 1 or index.shape != counts.shape or bool((counts < 0).any()):
        raise ValueError(f"{name} are not non-negative int64 counts")
    if bool((index[1:] <= index[:-1]).any()) or bool((index < 0).any()):
        raise ValueError(f"the indices of {name} are not in order")
    return torch.zeros(size, dtype=torch.int64).index_put((index,), counts)


def _private(facts: Mapping[str, Any]) -> Privacy | None:
    if facts.get("private") is None:
        return None
    try:
        said = config.from_mapping(Privacy, facts["private"], source="its metadata")
    except ConfigError as error:
        raise ValueError(f"its metadata say {facts['private']!r:.200} of noise") from error
    private = dataclasses.replace(said, sigma={kind: float(sigma) for kind, sigma in said.sigma.items()})
    numbers = (private.epsilon, private.delta, private.clip, *private.sigma.values())
    if private.sigma.keys() != sizes(facts).keys() or not all(0 < number < math.inf for number in numbers):
        raise ValueError(f"its metadata say {facts['private']!r:.200} of noise")
    return private


def _features(tensors: dict[str, Tensor], facts: Mapping[str, Any]) -> FeatureSums | None:
    if "features.recipe" not in facts:
        return None
    recipe, count = facts["features.recipe"], facts["features.count"]
    total, gram = tensors["features.sum"], tensors["features.gram"]
    square = total.ndim == 1 and gram.shape == (len(total), len(total))
    if not square or {total.dtype, gram.dtype} != {torch.int64} or type(count) is not int or count < 0:
        raise ValueError("the feature sums are not int64 sums of one count, a vector and a square")
    return FeatureSums(str(recipe), count, total, gram)
