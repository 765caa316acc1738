"""Every message between server and nodes: all keys that travel are the fields of the dataclasses here.

message            asks for                                       reply
query.describe     who are you?                                   Description
train              train from these weights for so many steps     Trained, weights
evaluate           the losses on what you held out                Evaluated
query.statistics   router statistics of what you train on         Counted, counts

The text itself, its loss per example, or anything else about it has no message. torch is not imported here.
"""

import dataclasses
import io
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
from flwr.app import Array as FlowerArray
from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from moehub import config
from moehub.errors import ConfigError, FederationError

T = TypeVar("T")
Arrays = Mapping[str, np.ndarray[Any, Any]]

DESCRIBE, TRAIN, EVALUATE, STATISTICS = "query.describe", "train", "evaluate", "query.statistics"
_FACTS, _ARRAYS = "facts", "arrays"
_HEADER = 4096
"""Most bytes of the `.npy` header of an array: numpy writes 128."""


@dataclasses.dataclass(frozen=True)
class Asked:
    """What every task says."""

    task: str
    """Decides the task entirely: equal tasks are done once, and answered from what is kept."""
    run: str
    """The federation's own name for this run, the same after a resumption."""
    domain: str
    base: str
    """Reference of the base."""
    revision: str
    """Commit on the hub; empty for a folder."""
    digest: str
    """Of the base's weights."""
    tokenizer: str
    """Digest of the base's tokenizer."""
    settings: str
    """`TrainConfig` as JSON."""


@dataclasses.dataclass(frozen=True)
class TrainTask(Asked):
    """Train from the weights that come along: both factors, or B alone where A is frozen."""

    round: int
    """From 1."""
    rounds: int
    steps: int
    """Optimizer steps of this round."""
    frozen_a: bool
    start: str
    """Digest of the adapter that the run began with; each node draws A itself."""
    proximal: float


@dataclasses.dataclass(frozen=True)
class EvaluateTask(Asked):
    """Measure the base, and the base with these weights (sent as in `TrainTask`), on what was held out."""

    frozen_a: bool
    start: str


@dataclasses.dataclass(frozen=True)
class StatisticsTask(Asked):
    """Count the tokens, pairs and triples of what is trained on."""


@dataclasses.dataclass(frozen=True)
class DescribeTask:
    """Say who you are."""

    base: str
    revision: str
    digest: str
    tokenizer: str


@dataclasses.dataclass(frozen=True)
class Description:
    """Who a node is."""

    domain: str
    name: str
    """Empty unless its owner agreed to be named."""
    digest: str
    """Of the weights of the base that it has."""
    rank: int
    """The rank that it trains with; 0: the federation's."""
    device: str
    """`cpu`, or the kind of accelerator."""
    version: str
    """Of moehub."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came out of a training; its weights come along."""

    task: str
    digest: str
    rank: int
    tokens: int
    """That a loss was computed on in this round: the weight of the reply."""
    examples: int
    """In the training split."""
    kind: str
    """`pretrain` or `sft`."""
    loss: float
    """Mean over this round's training tokens, in nats."""
    seconds: float
    """Of training, without waiting or loading."""


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Losses on what the node held out, in nats per token; 0 tokens where nothing was held out."""

    task: str
    digest: str
    base_loss: float
    expert_loss: float
    tokens: int


@dataclasses.dataclass(frozen=True)
class Counted:
    """Router statistics; the arrays come along as `moehub.experts.statistics` stores them."""

    task: str
    digest: str
    tokenizer: str
    vocabulary: int
    pair_bits: int
    triple_bits: int
    """0 where no triples are counted."""
    suppressed_below: int
    recipe: str
    """Of the feature sums; empty where there are none."""
    features: int
    """Tokens in the feature sums."""


@dataclasses.dataclass(frozen=True)
class Sent:
    """An array of a message as it came: what it says about itself, before any of it is decoded."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    data: bytes
    """In numpy's `.npy` format."""
    offset: int
    """Where the values begin in `data`."""

    def values(self) -> np.ndarray[Any, Any]:
        """Return a copy of the values."""
        return np.frombuffer(self.data, self.dtype, offset=self.offset).reshape(self.shape).copy()


def packed(arrays: Arrays) -> ArrayRecord:
    """Return arrays ready to be sent; one that goes to many nodes is packed once."""
    return ArrayRecord({name: FlowerArray(np.ascontiguousarray(values)) for name, values in arrays.items()})


def content(facts: Any, arrays: Arrays | ArrayRecord | None = None) -> RecordDict:
    """Return a message's content: the facts of one of the dataclasses here, and arrays by name."""
    found = RecordDict({_FACTS: ConfigRecord(dataclasses.asdict(facts))})
    if arrays is not None:
        found[_ARRAYS] = arrays if isinstance(arrays, ArrayRecord) else packed(arrays)
    return found


def facts(kind: type[T], found: RecordDict) -> T:
    """Return the facts in a message's content; whoever sent it may have written anything.

    Raises:
        FederationError: they are missing, or not exactly the fields of `kind`, each of its type.
    """
    record = found.config_records.get(_FACTS)
    if record is None:
        raise FederationError(f"the message holds no {_FACTS!r}, expected those of {kind.__name__}")
    try:
        return config.from_mapping(kind, dict(record), source="the message")
    except ConfigError as error:
        raise FederationError(str(error)) from error


def sent(found: RecordDict) -> dict[str, Sent]:
    """Return the arrays in a message's content without decoding them, none where it carries none.

    Raises:
        FederationError: one of them is no plain array, or holds more or less than it says.
    """
    record = found.array_records.get(_ARRAYS)
    return {} if record is None else {str(name): _sent(str(name), array) for name, array in record.items()}


def arrays(found: RecordDict) -> dict[str, np.ndarray[Any, Any]]:
    """Return the arrays in a message's content, none where it carries none.

    Raises:
        FederationError: they cannot be read.
    """
    return {name: one.values() for name, one in sent(found).items()}


def _sent(name: str, array: FlowerArray) -> Sent:
    file = io.BytesIO(array.data[:_HEADER])
    try:
        version = np.lib.format.read_magic(file)
        shape, by_columns, dtype = np.lib.format.read_array_header_1_0(file, max_header_size=_HEADER)
    except (ValueError, TypeError, EOFError, OverflowError) as error:
        raise FederationError(f"the message's array {name!r:.80} cannot be read ({error})") from error
    held, said = len(array.data) - file.tell(), math.prod(shape) * dtype.itemsize
    if version != (1, 0) or by_columns or dtype.hasobject or min(shape, default=0) < 0 or held != said:
        raise FederationError(
            f"the message's array {name!r:.80} says {dtype} of shape {shape!r:.80} in {said} bytes and holds {held}: "
            "expected a plain array, row by row, of numpy's format 1.0"
        )
    return Sent(shape, dtype, array.data, file.tell())
