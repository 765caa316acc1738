"""Messages between server and nodes: facts and arrays, there and back."""

import dataclasses
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from moehub.errors import FederationError
from moehub.federation import messages
from moehub.federation.messages import (
    Counted,
    DescribeTask,
    Description,
    Evaluated,
    EvaluateTask,
    StatisticsTask,
    Trained,
    TrainTask,
)

KINDS: list[type[Any]] = [
    DescribeTask,
    Description,
    TrainTask,
    Trained,
    EvaluateTask,
    Evaluated,
    StatisticsTask,
    Counted,
]
_EXAMPLES = {"str": "ü/x", "int": 1 << 40, "float": 0.5, "bool": True, str: "ü/x", int: 1 << 40, float: 0.5, bool: True}


def example(kind: type[Any]) -> Any:
    """Return facts of a kind."""
    return kind(**{each.name: _EXAMPLES[each.type] for each in dataclasses.fields(kind)})


@pytest.mark.parametrize("kind", KINDS)
def test_facts_come_back_as_they_were(kind: type[Any]) -> None:
    """Every field of every kind of message is one that Flower carries."""
    found = example(kind)
    assert messages.facts(kind, messages.content(found)) == found


@pytest.mark.parametrize("kind", KINDS)
def test_facts_of_another_kind_are_refused(kind: type[Any]) -> None:
    """Nobody takes one message for another."""
    other = Trained if kind is TrainTask else TrainTask
    with pytest.raises(FederationError, match=kind.__name__):
        messages.facts(kind, messages.content(example(other)))


def test_a_message_without_facts_is_refused() -> None:
    """What is missing is named."""
    with pytest.raises(FederationError, match="no 'facts', expected those of Trained"):
        messages.facts(Trained, RecordDict())


@given(
    npst.arrays(
        st.sampled_from([np.float32, np.int64, np.int32]),
        npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
    )
)
def test_arrays_come_back_to_the_bit(values: Any) -> None:
    """Names, shapes, types and every bit; what comes back is one's own to change."""
    found = messages.arrays(messages.content(example(StatisticsTask), {"a": values, "b": values.T}))
    assert {name: (each.dtype, each.shape) for name, each in found.items()} == {
        "a": (values.dtype, values.shape),
        "b": (values.dtype, values.T.shape),
    }
    assert (found["a"].tobytes(), found["b"].tobytes()) == (values.tobytes(), values.T.tobytes())
    assert all(each.flags.writeable for each in found.values())


def test_arrays_are_packed_once_for_many_messages() -> None:
    """Every message carries the same record."""
    packed = messages.packed({"x": np.ones(3, np.float32)})
    first, second = (messages.content(example(StatisticsTask), packed) for _ in range(2))
    assert first["arrays"] is second["arrays"]
    assert messages.arrays(first)["x"].tolist() == [1, 1, 1]


def test_a_message_without_arrays_carries_none() -> None:
    """No arrays, and an empty record of them, are both none."""
    assert messages.arrays(messages.content(example(StatisticsTask))) == {}
    assert messages.arrays(messages.content(example(StatisticsTask), {})) == {}


def test_sent_arrays_say_what_they_are_before_they_are_decoded() -> None:
    """Shape and type from the header alone."""
    sent = messages.sent(messages.content(example(StatisticsTask), {"x": np.ones((2, 3), np.float32)}))["x"]
    assert (sent.shape, sent.dtype) == ((2, 3), np.dtype(np.float32))
    assert sent.values().tolist() == [[1, 1, 1]] * 2


@pytest.mark.parametrize("data", [b"", b"\x93NUMPY", b"\x80\x04\x95", b"\x93NUMPY\x02\x00" + bytes(200)])
def test_bytes_that_are_no_array_are_refused(data: bytes) -> None:
    """The array is named; nothing is unpickled."""
    record = messages.packed({})
    record["x"] = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=data)
    with pytest.raises(FederationError, match="array 'x'"):
        messages.arrays(RecordDict({"facts": ConfigRecord(), "arrays": record}))


def test_objects_are_never_decoded() -> None:
    """An array of pickled objects is refused from its header."""
    import io

    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    record = messages.packed({})
    record["x"] = Array(dtype="object", shape=(1,), stype="numpy.ndarray", data=file.getvalue())
    with pytest.raises(FederationError, match="expected a plain array"):
        messages.arrays(RecordDict({"arrays": record}))


def test_messages_do_not_import_torch() -> None:
    """A node's process for each message starts without it."""
    code = "import sys; from moehub.federation import messages; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
