"""Step 5: the router statistics' tensors, and the metadata that say what was counted.

Whether such counts can be those of a text is for step 9.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, check
from moehub.admission.header import Entry, Header
from moehub.admission.policy import Policy
from moehub.admission.strict import Document, StrictJsonError, parse, quoted
from moehub.admission.subject import Subject
from moehub.card import STATISTICS_FILE
from moehub.experts.statistics import FORMAT, sizes

_COUNT = "count the statistics again with `moehub train-expert`"
_PLAIN = {"format", "pair_bits", "suppressed_below", "tokenizer", "vocabulary"}
_FEATURES = {"features.count", "features.recipe"}
_TRIPLES = {"triple_bits"}
_PRIVATE = {"private"}
_PARTS = {"count": "I64", "index": "I32"}
_SUMS = {"features.gram": "I64", "features.sum": "I64"}
_MOST_DIMENSIONS = 4096
_LARGEST_FEATURE = 127
"""Features are int8."""
_MOST_EPSILON = 1000
_MOST_SIGMA = 1e9


@check(5)
def statistics_metadata(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The statistics say in which format, over how many tokens and buckets they were counted, within bounds."""
    if subject.counts is None:
        return
    try:
        found = _document(subject.counts)
    except StrictJsonError as error:
        yield Fault(f"the metadata of {STATISTICS_FILE} are no JSON ({error})", _COUNT)
        return
    if not isinstance(found.value, dict) or found.duplicates or found.value.keys() != _keys(found.value):
        expected = f"expected {', '.join(sorted(_PLAIN))}, each once"
        yield Fault(f"the metadata of {STATISTICS_FILE} are {quoted(found.value)}, {expected}", _COUNT)
        return
    for key, value in found.value.items():
        if not _holds(key, value, found.value, policy):
            yield Fault(f"{key} = {quoted(value)} in the metadata of {STATISTICS_FILE} is out of bounds", _COUNT)


@check(5)
def statistics_tokenizer(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The statistics were counted with the tokenizer of the base that the card names."""
    facts = _facts(subject)
    if facts and isinstance(facts.get("tokenizer"), str) and facts["tokenizer"] != subject.card.base.tokenizer:
        yield Fault("its router statistics were counted with another tokenizer than the base's", "train it again")


@check(5)
def statistics_tensors(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The statistics are as many indices as counts of each kind, and sums of features where announced."""
    if subject.counts is None:
        return
    facts, entries = _facts(subject), _entries(subject.counts)
    if facts.keys() != _keys(facts):
        return  # That is for `statistics_metadata`.
    expected = _expected(facts)
    for name in sorted(expected.keys() ^ entries.keys()):
        what = "lacks" if name in expected else "holds"
        yield Fault(f"{STATISTICS_FILE} {what} the tensor {quoted(name)}", _COUNT)
    for name, dtype in expected.items():
        if name in entries and entries[name].dtype != dtype:
            yield Fault(f"{name} in {STATISTICS_FILE} is {entries[name].dtype}, expected {dtype}", _COUNT)
    for kind in _kinds(facts):
        first, second = f"{kind}.index", f"{kind}.count"
        if {first, second} <= entries.keys() and not _alike(entries[first], entries[second]):
            yield Fault(f"{first} and {second} in {STATISTICS_FILE} are not as many in one row", _COUNT)
    if _SUMS.keys() <= entries.keys() and not _square(entries["features.sum"], entries["features.gram"]):
        yield Fault(f"the sums of features in {STATISTICS_FILE} are no vector and square", _COUNT)


@check(5)
def statistics_counts(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Indices are in order and in range, and counts are positive and no more than a text could have."""
    header, facts = subject.counts, _facts(subject)
    if header is None or not _readable(header, facts, policy):
        return
    entries = _entries(header)
    for name, size in sizes(facts).items():
        index = header.array(entries[f"{name}.index"])
        if len(index) and not (index[0] >= 0 and index[-1] < size and bool((index[1:] > index[:-1]).all())):
            yield Fault(f"the indices of its {name} are not in order between 0 and {size - 1}", _COUNT)
        counts = header.array(entries[f"{name}.count"])
        if len(counts) and not (counts.min() >= 1 and float(counts.sum(dtype=float)) <= policy.most_count):
            yield Fault(f"the counts of its {name} are not between 1 and {policy.most_count} together", _COUNT)


@check(5)
def feature_sums(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Sums of features are no larger than that many features of 8 bits can add up to, and symmetric."""
    header, facts = subject.counts, _facts(subject)
    if header is None or "features.count" not in facts or not _readable(header, facts, policy):
        return
    entries, tokens = _entries(header), facts["features.count"]
    total = header.array(entries["features.sum"])
    gram = header.array(entries["features.gram"]).reshape(len(total), len(total))
    bounded = _within(total, _LARGEST_FEATURE * tokens) and _within(gram, _LARGEST_FEATURE**2 * tokens)
    if not bounded or bool((gram != gram.T).any()):
        yield Fault(f"its sums of features cannot be sums over {tokens} tokens", _COUNT)


def _document(header: Header) -> Document:
    metadata = header.metadata
    text = metadata.get("moehub") if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise StrictJsonError("there are none")
    return parse(text.encode())


def _facts(subject: Subject) -> Mapping[str, Any]:
    """Return what the metadata say; nothing where they cannot be read."""
    if subject.counts is None:
        return {}
    try:
        value = _document(subject.counts).value
    except StrictJsonError:
        return {}
    return value if isinstance(value, dict) else {}


def _kinds(facts: Mapping[str, Any]) -> tuple[str, ...]:
    return ("pairs", "unigrams", "triples") if _TRIPLES & facts.keys() else ("pairs", "unigrams")


def _keys(facts: Mapping[str, Any]) -> set[str]:
    """Return the keys that metadata may have which hold these."""
    return _PLAIN.union(*(group for group in (_FEATURES, _TRIPLES, _PRIVATE) if group & facts.keys()))


def _expected(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the tensors that such metadata announce, and their dtypes."""
    counts = {f"{kind}.{part}": dtype for kind in _kinds(facts) for part, dtype in _PARTS.items()}
    return counts | (_SUMS if _FEATURES & facts.keys() else {})


def _holds(key: str, value: object, facts: Mapping[str, Any], policy: Policy) -> bool:
    bounds = {
        "format": (FORMAT, FORMAT),
        "vocabulary": (1, policy.most_vocabulary),
        "pair_bits": (1, policy.most_pair_bits),
        "triple_bits": (1, policy.most_pair_bits),
        "suppressed_below": (0, policy.most_count),
        "features.count": (0, policy.most_count),
    }
    if key == "private":
        return _is_privacy(value, _kinds(facts), policy)
    if key in bounds:
        least, most = bounds[key]
        return type(value) is int and least <= value <= most
    return isinstance(value, str) and len(value) <= 1024 and value.isprintable()


def _is_privacy(value: object, kinds: tuple[str, ...], policy: Policy) -> bool:
    if not isinstance(value, dict) or value.keys() != {"epsilon", "delta", "clip", "sigma"}:
        return False
    sigma = value["sigma"]
    if not isinstance(sigma, dict) or sigma.keys() != set(kinds) or type(value["clip"]) is not int:
        return False
    numbers = [
        (value["epsilon"], _MOST_EPSILON),
        (value["delta"], 1),
        (value["clip"], policy.most_count),
        *((one, _MOST_SIGMA) for one in sigma.values()),
    ]
    return all(type(number) in (int, float) and 0 < number <= most for number, most in numbers)


def _readable(header: Header, facts: Mapping[str, object], policy: Policy) -> bool:
    """Return whether metadata and tensors are as the other checks of this step want them."""
    entries = _entries(header)
    return (
        facts.keys() == _keys(facts)
        and all(_holds(key, value, facts, policy) for key, value in facts.items())
        and {name: entry.dtype for name, entry in entries.items()} == _expected(facts)
        and all(_alike(entries[f"{kind}.index"], entries[f"{kind}.count"]) for kind in _kinds(facts))
        and (not _FEATURES & facts.keys() or _square(entries["features.sum"], entries["features.gram"]))
    )


def _entries(header: Header) -> dict[str, Entry]:
    return {entry.name: entry for entry in header.entries}


def _alike(first: Entry, second: Entry) -> bool:
    return len(first.shape) == 1 and first.shape == second.shape


def _square(total: Entry, gram: Entry) -> bool:
    width = total.shape[0] if total.shape else 0
    return total.shape == (width,) and gram.shape == (width, width) and 1 <= width <= _MOST_DIMENSIONS


def _within(values: "np.ndarray[Any, Any]", bound: int) -> bool:
    # Not by abs: that of the smallest integer is negative.
    return bool(-bound <= values.min() and values.max() <= bound)
