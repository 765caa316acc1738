"""The gate: every check in order, cheapest first."""

import time
from collections.abc import Sequence
from itertools import groupby, islice
from pathlib import Path

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Check, Fault, NotAtHandError
from moehub.admission.policy import Policy
from moehub.admission.registry import registered
from moehub.admission.subject import Subject
from moehub.admission.verdict import Refusal, Skipped, Verdict
from moehub.errors import ExpertError

_MOST_FAULTS = 8
"""Of one check: a stranger may make as many as there are tensors."""


def examine(
    folder: Path,
    at_hand: AtHand | None = None,
    policy: Policy | None = None,
    *,
    name: str | None = None,
    checks: Sequence[Check] | None = None,
) -> Verdict:
    """Return what the gate says about the expert in `folder`; a step runs only if those before it found nothing.

    Args:
        folder: where the expert's files lie; nothing of it is trusted, and nothing in it is changed.
        at_hand: what may be used besides; nothing where it is None.
        policy: the thresholds; the default ones where it is None.
        name: what to call the expert in the verdict; the folder where it is None.
        checks: those to make, by step; all that are registered where it is None.

    Raises:
        ExpertError: there is no such folder.
    """
    subject, at_hand, policy = Subject(folder), at_hand or AtHand(), policy or Policy()
    refusals: list[Refusal] = []
    skipped: list[Skipped] = []
    _ = subject.modes
    seconds: dict[str, float] = {}
    for step, together in groupby(registered() if checks is None else checks, key=lambda one: one.step):
        for one in together:
            started = time.perf_counter()
            try:
                found = list(islice(one.examine(subject, at_hand, policy), _MOST_FAULTS))
            except NotAtHandError as missing:
                skipped.append(Skipped(one.code, step, str(missing)))
                continue
            except ExpertError as error:
                # What a check cannot read, it cannot admit.
                found = [Fault.parse(str(error))]
            seconds[one.code] = time.perf_counter() - started
            refusals += [Refusal(one.code, step, fault.sentence, fault.cure) for fault in found]
        if refusals:
            break
    return Verdict(name or str(folder), tuple(refusals), tuple(skipped), seconds)
