"""What a node may say, and each thing that it may not."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from moehub.errors import FederationError
from moehub.federation import messages, weights
from moehub.federation.messages import Counted, Description, Evaluated, Trained, TrainTask
from moehub.federation.server import validation
from tests.federation.runs import FORM, settings

TASK = TrainTask(
    task="ab" * 32,
    run="r",
    domain="law",
    base="tiny",
    revision="",
    digest=FORM.base.digest,
    tokenizer=FORM.base.tokenizer,
    settings="{}",
    round=1,
    rounds=2,
    steps=4,
    frozen_a=True,
    start="s",
    proximal=0.0,
)
TRAINED = Trained(TASK.task, FORM.base.digest, rank=2, tokens=100, examples=7, kind="sft", loss=2.5, seconds=1.0)
DESCRIPTION = Description("law", "Ada", FORM.base.digest, 0, "cpu", "0.1.0")
EVALUATED = Evaluated(TASK.task, FORM.base.digest, 3.0, 2.0, 50)
COUNTED = Counted(TASK.task, FORM.base.digest, FORM.base.tokenizer, FORM.vocabulary, 8, 9, 0, recipe="", features=0)
CONFIG = settings()


def b_alone(rank: int = 2) -> dict[str, Any]:
    """Return weights as a node sends them where A is frozen."""
    return weights.trained(weights.initial(FORM.shapes(rank), 0), frozen_a=True)


def counts() -> dict[str, Any]:
    """Return counts of three tokens, two pairs and a triple."""
    return {
        "unigrams.index": np.array([1, 5, 49], np.int32),
        "unigrams.count": np.array([4, 2, 9], np.int64),
        "pairs.index": np.array([0, 255], np.int32),
        "pairs.count": np.array([10, 4], np.int64),
        "triples.index": np.array([511], np.int32),
        "triples.count": np.array([15], np.int64),
    }


def trained(facts: Any = TRAINED, arrays: Any = None, *, task: TrainTask = TASK, rank: int = 2, **changes: Any) -> Any:
    """Check a training."""
    found = messages.content(facts, b_alone() if arrays is None else arrays)
    return validation.trained(found, task, FORM, settings(**changes), rank=rank)


def counted(facts: Any = COUNTED, arrays: Any = None, **changes: Any) -> Any:
    """Check statistics."""
    found = messages.content(facts, counts() if arrays is None else arrays)
    return validation.counted(found, TASK.task, FORM, settings(**changes))


def with_array(name: str, array: Array) -> RecordDict:
    """Return a training one of whose arrays is somebody else's work."""
    record = messages.packed(b_alone())
    record[name] = array
    return RecordDict({"facts": ConfigRecord(dataclasses.asdict(TRAINED)), "arrays": record})


def test_a_good_training_is_accepted_whole() -> None:
    """Facts and weights come out as they were sent."""
    facts, found = trained()
    assert facts == TRAINED
    assert {name: values.tobytes() for name, values in found.items()} == {
        name: values.tobytes() for name, values in b_alone().items()
    }


def test_a_good_training_of_a_smaller_rank_is_accepted_where_it_was_announced() -> None:
    """Both factors at rank 1, where A is not frozen."""
    task = dataclasses.replace(TASK, frozen_a=False)
    whole = weights.initial(FORM.shapes(1), 0)
    facts, found = trained(dataclasses.replace(TRAINED, rank=1), whole, task=task, rank=1, aggregation="product")
    assert (facts.rank, found.keys()) == (1, whole.keys())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "cd" * 32}, "its task is"),
        ({"digest": "ef" * 32}, "its base has digest"),
        ({"rank": 4}, "its rank is 4, expected 2"),
        ({"tokens": 0}, "its tokens is 0"),
        ({"tokens": -1}, "its tokens is -1"),
        ({"tokens": 4 * 2 * 64 + 1}, "its tokens is 513, expected between 1 and 512"),
        ({"examples": 0}, "its examples is 0"),
        ({"examples": 1 << 50}, "its examples is"),
        ({"kind": "magic"}, "its kind is 'magic'"),
        ({"loss": float("nan")}, "its loss is nan"),
        ({"loss": float("inf")}, "its loss is inf"),
        ({"loss": -0.5}, "its loss is -0.5"),
        ({"seconds": float("inf")}, "its seconds is inf"),
        ({"seconds": -1.0}, "its seconds is -1.0"),
    ],
)
def test_a_training_that_says_what_cannot_be_is_refused(changes: dict[str, Any], reason: str) -> None:
    """Each fact has its bounds, and the reason names it."""
    with pytest.raises(FederationError, match=reason):
        trained(dataclasses.replace(TRAINED, **changes))


def test_as_many_tokens_as_the_steps_hold_are_accepted() -> None:
    """The bound itself is within."""
    assert trained(dataclasses.replace(TRAINED, tokens=4 * 2 * 64))[0].tokens == 512


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda arrays: arrays | {"more": np.zeros((2, 2), np.float32)}, "'more' is unknown"),
        (lambda arrays: dict(list(arrays.items())[1:]), "is missing"),
        (lambda _: {}, "is missing"),
        (lambda arrays: {name: values[:, :1] for name, values in arrays.items()}, "expected float32 of"),
        (lambda arrays: {name: values[None] for name, values in arrays.items()}, "expected float32 of"),
        (lambda arrays: {name: values.T.copy() for name, values in arrays.items()}, "expected float32 of"),
        (lambda arrays: {name: values.astype(np.float64) for name, values in arrays.items()}, "is float64"),
        (lambda arrays: {name: values.astype(np.float16) for name, values in arrays.items()}, "is float16"),
        (lambda arrays: {name: values.astype(">f4") for name, values in arrays.items()}, "is >f4"),
        (lambda arrays: {name: values * np.inf for name, values in arrays.items()}, "not finite"),
        (lambda arrays: {name: values + np.nan for name, values in arrays.items()}, "not finite"),
        (lambda _: weights.initial(FORM.shapes(2), 0), "is unknown"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply:RuntimeWarning")  # 0 · inf, on purpose
def test_weights_that_were_not_asked_for_are_refused(change: Any, reason: str) -> None:
    """Names, shapes and types are exactly those of the form, and every value is finite."""
    with pytest.raises(FederationError, match=reason):
        trained(arrays=change(b_alone()))


def forged(header: dict[str, Any], values: bytes) -> Array:
    """Return an array with a header of somebody's choice."""
    import io

    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, header)
    return Array(dtype="float32", shape=(6, 2), stype="numpy.ndarray", data=file.getvalue() + values)


@pytest.mark.parametrize(
    "array",
    [
        forged({"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 1 << 10)}, bytes(48)),
        forged({"descr": "<f4", "fortran_order": False, "shape": (6, 2)}, bytes(40)),
        forged({"descr": "<f4", "fortran_order": False, "shape": (6, 2)}, bytes(56)),
        forged({"descr": "<f4", "fortran_order": True, "shape": (6, 2)}, bytes(48)),
        forged({"descr": "<f4", "fortran_order": False, "shape": (-6, -2)}, bytes(48)),
        forged({"descr": "|O", "fortran_order": False, "shape": (6,)}, bytes(48)),
        Array(dtype="float32", shape=(6, 2), stype="numpy.ndarray", data=b"\x80\x04pickle"),
        Array(dtype="float32", shape=(6, 2), stype="numpy.ndarray", data=b""),
        Array(dtype="float32", shape=(6, 2), stype="numpy.ndarray", data=b"\x93NUMPY\x01\x00\xff\xff" + b"{" * 70000),
    ],
    ids=["huge", "short", "long", "by columns", "negative", "objects", "pickle", "empty", "long header"],
)
def test_forged_arrays_are_refused_before_they_are_decoded(array: Array) -> None:
    """A header that says more than there is costs nothing: no memory is taken for what it says."""
    found = with_array(max(b_alone()), array)
    with pytest.raises(FederationError, match="array"):
        validation.trained(found, TASK, FORM, CONFIG, rank=2)


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {**dataclasses.asdict(TRAINED), "loss": [1.0]},
        {**dataclasses.asdict(TRAINED), "tokens": 1.5},
        {**dataclasses.asdict(TRAINED), "tokens": True},
        {**dataclasses.asdict(TRAINED), "more": 1},
    ],
)
def test_facts_of_other_fields_or_types_are_refused(facts: dict[str, Any]) -> None:
    """Exactly the fields, each of its type."""
    found = RecordDict({"facts": ConfigRecord(facts), "arrays": messages.packed(b_alone())})
    with pytest.raises(FederationError, match="Trained"):
        validation.trained(found, TASK, FORM, CONFIG, rank=2)


def test_a_reply_without_facts_is_refused() -> None:
    """Weights alone say nothing."""
    with pytest.raises(FederationError, match="no 'facts'"):
        validation.trained(RecordDict({"arrays": ArrayRecord()}), TASK, FORM, CONFIG, rank=2)


def described(changes: dict[str, Any], **options: Any) -> Description:
    """Check what a node says about itself."""
    said = dataclasses.replace(DESCRIPTION, **changes)
    return validation.described(messages.content(said), FORM, settings(**options))


def test_a_good_description_is_accepted() -> None:
    """It comes out as it was sent."""
    assert described({}) == DESCRIPTION


@pytest.mark.parametrize(
    ("changes", "options", "reason"),
    [
        ({"digest": "ef" * 32}, {}, "its base has digest 'efef"),
        ({"domain": "Law/../x"}, {}, "domain 'Law/../x' cannot be used"),
        ({"domain": "null"}, {}, "cannot be used"),
        ({"domain": "code"}, {"domains": ("law",)}, "expected one of law"),
        ({"rank": 1}, {}, "which ffa cannot aggregate"),
        ({"rank": 2}, {"aggregation": "fedavg"}, "which fedavg cannot aggregate"),
        ({"rank": 3}, {"aggregation": "product"}, "at most the federation's 2"),
        ({"rank": -1}, {"aggregation": "product"}, "at most the federation's 2"),
        ({"name": "x" * 65}, {}, "its name is"),
        ({"name": "a\x1b[2Jb"}, {}, "its name is"),
        ({"device": "c\npu"}, {}, "its device is"),
        ({"version": "1" * 100}, {}, "its version is"),
    ],
)
def test_a_node_that_cannot_take_part_is_refused(changes: dict[str, Any], options: dict[str, Any], reason: str) -> None:
    """Base, domain, rank and every text are checked."""
    with pytest.raises(FederationError, match=reason):
        described(changes, **options)


def evaluated(**changes: Any) -> Evaluated:
    """Check losses."""
    found = messages.content(dataclasses.replace(EVALUATED, **changes))
    return validation.evaluated(found, TASK.task, FORM, CONFIG)


def test_good_losses_are_accepted() -> None:
    """They come out as they were sent; where nothing was held out, the losses may be no numbers."""
    assert evaluated() == EVALUATED
    assert evaluated(tokens=0, base_loss=float("nan"), expert_loss=float("nan")).tokens == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "x"}, "its task is"),
        ({"digest": "x"}, "its base has digest"),
        ({"tokens": -1}, "its tokens is -1"),
        ({"tokens": CONFIG.train.holdout_tokens + 1}, "its tokens is 100001"),
        ({"base_loss": float("nan")}, "its base_loss is nan"),
        ({"expert_loss": -1.0}, "its expert_loss is -1.0"),
        ({"expert_loss": float("inf")}, "its expert_loss is inf"),
        ({"expert_loss": 1e5}, "its expert_loss is 100000.0"),
    ],
)
def test_losses_that_cannot_be_are_refused(changes: dict[str, Any], reason: str) -> None:
    """Finite, not negative, and over no more tokens than are held out."""
    with pytest.raises(FederationError, match=reason):
        evaluated(**changes)


def test_good_statistics_are_accepted() -> None:
    """They come out as they were sent."""
    facts, arrays = counted()
    assert facts == COUNTED
    assert {name: values.tolist() for name, values in arrays.items()} == {
        name: values.tolist() for name, values in counts().items()
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"task": "x"}, "its task is"),
        ({"digest": "x"}, "its base has digest"),
        ({"tokenizer": "x"}, "its tokenizer is 'x'"),
        ({"vocabulary": 51}, "its vocabulary is 51, expected 50"),
        ({"pair_bits": 9}, "its pair_bits is 9, expected 8"),
        ({"triple_bits": 8}, "its triple_bits is 8, expected 9"),
        ({"triple_bits": 0}, "its triple_bits is 0, expected 9"),
        ({"suppressed_below": -1}, "its suppressed_below is -1"),
        ({"suppressed_below": 3}, "not all between 3"),
        ({"recipe": "r"}, "its recipe is 'r', expected none"),
    ],
)
def test_statistics_that_say_what_cannot_be_are_refused(changes: dict[str, Any], reason: str) -> None:
    """Tokenizer, sizes and suppression are those of the federation, or true of the counts."""
    with pytest.raises(FederationError, match=reason):
        counted(dataclasses.replace(COUNTED, **changes))


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("unigrams.count", np.array([4, -2, 9], np.int64), "not all between 1"),
        ("unigrams.count", np.array([4, 0, 9], np.int64), "not all between 1"),
        ("unigrams.count", np.array([4, 2, 1 << 41], np.int64), "not all between 1"),
        ("unigrams.count", np.full(3, (1 << 63) - 1, np.int64), "not all between 1"),
        ("unigrams.count", np.array([4, 2], np.int64), "as many int32 indices"),
        ("unigrams.count", np.array([4, 2, 9], np.int32), "as many int32 indices"),
        ("unigrams.index", np.array([1, 5, 50], np.int32), "not in order between 0 and 49"),
        ("unigrams.index", np.array([-1, 5, 49], np.int32), "not in order between 0 and 49"),
        ("unigrams.index", np.array([5, 1, 49], np.int32), "not in order between 0 and 49"),
        ("unigrams.index", np.array([1, 1, 49], np.int32), "not in order between 0 and 49"),
        ("unigrams.index", np.array([[1, 5, 49]], np.int32), "as many int32 indices"),
        ("unigrams.index", np.array([1, 5, 49], np.int64), "as many int32 indices"),
        ("pairs.index", np.array([0, 256], np.int32), "not in order between 0 and 255"),
        ("pairs.count", np.array([10, 6], np.int64), "its pairs is 16"),
        ("triples.index", np.array([512], np.int32), "not in order between 0 and 511"),
        ("triples.count", np.array([14], np.int64), "its triples is 14, expected 15, as many as its tokens"),
        ("features.sum", np.zeros(4, np.int64), "is unknown"),
    ],
)
def test_counts_that_are_none_are_refused(name: str, values: Any, reason: str) -> None:
    """Non-negative, no more than there can be, and in the order of indices within range."""
    with pytest.raises(FederationError, match=reason):
        counted(arrays=counts() | {name: values})


def test_no_triples_are_sent_where_none_are_asked_for() -> None:
    """A federation may do without; then nobody sends any."""
    without = {name: values for name, values in counts().items() if not name.startswith("triples")}
    asked = dataclasses.replace(COUNTED, triple_bits=0)
    assert "triples.count" not in counted(asked, without, triple_bits=0)[1]
    with pytest.raises(FederationError, match=r"'triples\.count' is unknown"):
        counted(asked, counts(), triple_bits=0)


def test_no_counts_at_all_are_counts() -> None:
    """A text all of whose counts are suppressed has none left."""
    nothing = {name: values[:0] for name, values in counts().items()}
    assert counted(dataclasses.replace(COUNTED, suppressed_below=3), nothing)[1]["pairs.count"].tolist() == []


FEATURES = {"features.sum": np.array([10, -20], np.int64), "features.gram": np.array([[30, 4], [4, 50]], np.int64)}
WITH_FEATURES = dataclasses.replace(COUNTED, recipe="r", features=5)


def test_features_are_accepted_where_they_are_asked_for() -> None:
    """Sums and products come along."""
    _, arrays = counted(WITH_FEATURES, counts() | FEATURES, features=True)
    assert arrays["features.gram"].tolist() == [[30, 4], [4, 50]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"features.sum": np.array([10, 128 * 5], np.int64)}, "cannot be sums over 5 tokens"),
        ({"features.sum": np.array([10, -(1 << 63)], np.int64)}, "cannot be sums over 5 tokens"),
        ({"features.gram": np.array([[30, 4], [5, 50]], np.int64)}, "cannot be sums over 5 tokens"),
        ({"features.gram": np.array([[1 << 20, 4], [4, 50]], np.int64)}, "cannot be sums over 5 tokens"),
        ({"features.gram": np.zeros((2, 3), np.int64)}, "expected int64"),
        ({"features.gram": np.zeros((2, 2), np.float64)}, "expected int64"),
        ({"features.sum": np.zeros((), np.int64)}, "expected int64"),
        ({"features.sum": np.zeros(0, np.int64), "features.gram": np.zeros((0, 0), np.int64)}, "expected int64"),
    ],
)
def test_feature_sums_that_cannot_be_are_refused(changes: dict[str, Any], reason: str) -> None:
    """int8 features over so many tokens sum to no more than this."""
    with pytest.raises(FederationError, match=reason):
        counted(WITH_FEATURES, counts() | FEATURES | changes, features=True)
