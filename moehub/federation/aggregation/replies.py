"""Updates as the messages that Flower's strategies take, and the arrays that they give back."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, MessageType, Metadata, MetricRecord, RecordDict
from numpy.typing import NDArray

WEIGHT, PLACE = "weight", "place"
"""Metrics of a reply: what it counts in a mean, and which of the updates it is."""
_ARRAYS, _METRICS = "arrays", "metrics"


def reply(changes: Mapping[str, NDArray[np.float64]], *, weight: float, place: int) -> Message:
    """Return one node's changes as a reply to a training."""
    content = RecordDict(
        {_ARRAYS: record(changes), _METRICS: MetricRecord({WEIGHT: float(weight), PLACE: place})},
    )
    return Message(content=content, metadata=_METADATA)


def record(arrays: Mapping[str, NDArray[np.float64]]) -> ArrayRecord:
    """Return arrays by name as Flower holds them."""
    return ArrayRecord({name: Array(np.ascontiguousarray(values)) for name, values in arrays.items()})


def values(found: ArrayRecord) -> dict[str, NDArray[Any]]:
    """Return what `record` was made from."""
    return {str(name): each.numpy() for name, each in found.items()}


# Nothing is sent: the strategies read nothing of this, but a message has it.
_METADATA = Metadata(
    run_id=0,
    message_id="",
    src_node_id=0,
    dst_node_id=0,
    reply_to_message_id="",
    group_id="",
    created_at=0.0,
    ttl=1.0,
    message_type=MessageType.TRAIN,
)
