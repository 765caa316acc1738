"""Step 6: how much the expert changes the base. Only the product s·B·A counts: A or B alone may be of any size.

Of a DoRA the lengths of the rows count too: they are those of the weight that it makes, whatever s·B·A is.
"""

from collections.abc import Iterator

from moehub.admission import magnitude
from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, check
from moehub.admission.magnitude import Magnitude
from moehub.admission.policy import Policy
from moehub.admission.strict import quoted
from moehub.admission.subject import Subject

_CURE = "train it with a smaller alpha or learning rate, or on more text"


@check(6)
def update_norm(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its update s·B·A of a linear is not large beside the base's weight, nor by itself where no weight is at hand."""
    for linear, update in subject.updates.items():
        yield from _norm_faults(f"its update of {quoted(linear)}", update, _weight(at_hand, linear), policy)


@check(6)
def update_spectrum(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its update s·B·A of a linear stretches no direction far more than the base's weight, or a common one, does."""
    for linear, update in subject.updates.items():
        yield from _spectrum_faults(f"its update of {quoted(linear)}", update, _weight(at_hand, linear), policy)


@check(6)
def magnitude_size(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """The lengths that a DoRA gives to the rows of a linear are above 0, and no larger than an update may be."""
    for linear, vector in subject.adapter.magnitudes.items():
        what, least = f"the weight that it makes of {quoted(linear)}", float(vector.min())
        if not least > 0:
            yield Fault(f"{what} has a row of length {least:.4g}, expected more than 0", _CURE)
            continue
        A, B = subject.adapter.pairs[linear]
        made = magnitude.of_rows(vector, (B.shape[0], A.shape[1]))
        weight = _weight(at_hand, linear)
        yield from _norm_faults(what, made, weight, policy)
        yield from _spectrum_faults(what, made, weight, policy)


def _norm_faults(what: str, update: Magnitude, weight: Magnitude | None, policy: Policy) -> Iterator[Fault]:
    if weight is not None:
        found, most = update.norm / weight.norm, policy.most_relative_norm
        told = f"has {found:.4g} times the norm of the base's weight"
    else:
        found, most = update.norm / (update.shape[0] * update.shape[1]) ** 0.5, policy.most_update_rms
        told = f"has entries of {found:.4g} in their root mean square"
    if not found <= most:
        yield Fault(f"{what} {told}, expected at most {most:g}", _CURE)


def _spectrum_faults(what: str, update: Magnitude, weight: Magnitude | None, policy: Policy) -> Iterator[Fault]:
    if weight is not None:
        found, most = update.spectrum / weight.spectrum, policy.most_relative_spectrum
        told = f"stretches a direction {found:.4g} times as much as the base's weight"
    else:
        found, most = update.spectrum / (update.shape[0] ** 0.5 + update.shape[1] ** 0.5), policy.most_update_spread
        told = f"stretches a direction as much as random entries with a standard deviation of {found:.4g}"
    if not found <= most:
        yield Fault(f"{what} {told}, expected at most {most:g}", _CURE)


def _weight(at_hand: AtHand, linear: str) -> Magnitude | None:
    """Return how large the base's weight is, or None where it is not at hand or nothing."""
    weight = None if at_hand.base is None else magnitude.of_weight(at_hand.base, linear)
    return weight if weight is not None and weight.norm > 0 and weight.spectrum > 0 else None
