"""Step 5: the adapter's tensors: their names, shapes and dtypes, by themselves and against the base; all finite."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, NotAtHandError, check
from moehub.admission.header import Entry
from moehub.admission.policy import Policy
from moehub.admission.strict import quoted
from moehub.admission.subject import Subject
from moehub.card import ADAPTER_WEIGHTS
from moehub.experts.adapter import KEY, MAGNITUDE, by_pattern
from moehub.experts.linears import linear_shapes

_TRAIN = "train the expert again with `moehub train-expert`"
_DTYPES = ("BF16", "F16", "F32")
_EXPONENT_BF16 = 0x7F80
_TOGETHER = 1 << 22
"""Values that are looked at at once."""


@check(5)
def adapter_tensors(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The weights are pairs of lora_A and lora_B that fit together, at least one, and DoRA's vectors beside them."""
    for entry in subject.weights.entries:
        if not KEY.fullmatch(entry.name):
            found = f"{ADAPTER_WEIGHTS} holds a tensor {quoted(entry.name)}"
            yield Fault(f"{found}, expected only lora_A and lora_B of linears", "train it without saved modules")
    pairs = _halves(subject)
    for linear, parts in pairs.items():
        if not {"A", "B"} <= parts.keys():
            yield Fault(f"it lacks lora_A or lora_B of {quoted(linear)}", "publish the expert again, whole")
        elif not _fit(parts["A"], parts["B"]):
            shapes = f"{quoted(parts['A'].shape)} and {quoted(parts['B'].shape)}"
            yield Fault(f"lora_A and lora_B of {quoted(linear)} do not fit together ({shapes})", _TRAIN)
    if not pairs:
        yield Fault(f"{ADAPTER_WEIGHTS} adapts no linear", _TRAIN)


@check(5)
def magnitude_vector(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """A DoRA has one lora_magnitude_vector for each linear, with a number for each output; a LoRA has none."""
    dora = subject.config.get("use_dora") is True
    for linear, parts in _halves(subject).items():
        found = parts[MAGNITUDE].shape if MAGNITUDE in parts else None
        expected = parts["B"].shape[:1] if dora and "B" in parts else None
        if {"A", "B"} <= parts.keys() and found != expected:
            told = f"its lora_magnitude_vector of {quoted(linear)} has the shape {quoted(found)}"
            yield Fault(f"{told}, expected {quoted(expected)} where use_dora is {dora}", _TRAIN)


@check(5)
def tensor_dtype(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The weights are floating-point numbers of 16 or 32 bits."""
    for entry in subject.weights.entries:
        if entry.dtype not in _DTYPES:
            yield Fault(f"{quoted(entry.name)} is {entry.dtype}, expected {', '.join(_DTYPES)}", "save it as float32")


@check(5)
def tensor_rank(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The weights have the rank that the adapter's configuration says."""
    config = subject.config
    for linear, (A, B) in _pairs(subject).items():
        expected = by_pattern(config.get("rank_pattern"), linear, config["r"])  # type: ignore[arg-type]  # step 4 saw to it
        if _fit(A, B) and A.shape[0] != expected:
            yield Fault(f"its rank at {quoted(linear)} is {A.shape[0]}, expected {quoted(expected)}", _TRAIN)


@check(5)
def targets(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The weights adapt the linears that the adapter's configuration names, and no others."""
    named, linears = subject.config["target_modules"], _halves(subject)
    if not linears or not isinstance(named, list):
        return  # None at all is for `adapter_tensors`; the name of all linears means any.
    ends = {linear: _ends(linear) for linear in linears}
    for linear, its in ends.items():
        if its.isdisjoint(named):
            found = f"it adapts {quoted(linear)}, which its target_modules do not name"
            yield Fault(found, _TRAIN)
    for name in sorted(set(named) - set().union(*ends.values())):
        yield Fault(f"its target_modules name {quoted(name)}, but no such linear is adapted", _TRAIN)


@check(5)
def unknown_linear(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The linears that it adapts are linears of the base.

    Raises:
        NotAtHandError: no base is at hand.
    """
    shapes = _shapes(at_hand)
    for linear in _halves(subject):
        if linear not in shapes:
            yield Fault(f"it targets {quoted(linear)}, which is no linear of the base", "train it on this base")


@check(5)
def linear_shape(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its update of a linear has the shape of the base's weight.

    Raises:
        NotAtHandError: no base is at hand.
    """
    shapes = _shapes(at_hand)
    for linear, (A, B) in _pairs(subject).items():
        expected = shapes.get(linear)
        if expected is not None and _fit(A, B) and (B.shape[0], A.shape[1]) != expected:
            found = f"its update of {quoted(linear)} is {B.shape[0]} × {A.shape[1]}"
            yield Fault(f"{found}, expected {expected[0]} × {expected[1]}", "train it on this base")


@check(5)
def finite(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Every value is finite."""
    for entry in subject.weights.entries:
        if entry.dtype in _DTYPES and not _is_finite(entry, subject.weights.array(entry)):
            found = f"{ADAPTER_WEIGHTS} holds values that are not finite in {quoted(entry.name)}: the training diverged"
            yield Fault(found, "train the expert again with a smaller learning rate")


def _halves(subject: Subject) -> dict[str, dict[str, Entry]]:
    """Return linear → `A`, `B` and `MAGNITUDE`, as far as they are there."""
    found: dict[str, dict[str, Entry]] = {}
    for entry in subject.weights.entries:
        if match := KEY.fullmatch(entry.name):
            found.setdefault(match["linear"], {})[match["part"] or MAGNITUDE] = entry
    return found


def _pairs(subject: Subject) -> dict[str, tuple[Entry, Entry]]:
    return {name: (parts["A"], parts["B"]) for name, parts in _halves(subject).items() if {"A", "B"} <= parts.keys()}


def _fit(A: Entry, B: Entry) -> bool:
    return len(A.shape) == len(B.shape) == 2 and A.shape[0] == B.shape[1] >= 1


def _ends(linear: str) -> set[str]:
    """Return the names by which PEFT's `target_modules` can mean a linear: its own, and every end of it."""
    parts = linear.split(".")
    return {".".join(parts[begin:]) for begin in range(len(parts))}


def _shapes(at_hand: AtHand) -> Mapping[str, tuple[int, int]]:
    if at_hand.base_config is None:
        raise NotAtHandError("no base is at hand to compare shapes with: name one with --base")
    return linear_shapes(at_hand.base_config)


def _is_finite(entry: Entry, values: "np.ndarray[Any, Any]") -> bool:
    for begin in range(0, len(values), _TOGETHER):
        part = values[begin : begin + _TOGETHER]
        whole = (part & _EXPONENT_BF16) != _EXPONENT_BF16 if entry.dtype == "BF16" else np.isfinite(part)
        if not whole.all():
            return False
    return True
