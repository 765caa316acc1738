"""The entrance: whatever a merge takes in passes the admission gate first.

It does so in two looks, because the last step compares the expert's statistics with those of generic text, which are
counted as the experts' are: nobody's statistics are read before the first look has found them to be some.
"""

import dataclasses
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from moehub.admission.at_hand import AtHand
from moehub.admission.gate import examine
from moehub.admission.registry import registered
from moehub.admission.verdict import Verdict
from moehub.card import read_card
from moehub.console import progress
from moehub.errors import AdmissionError, listed
from moehub.experts.folder import Expert
from moehub.experts.statistics import Statistics
from moehub.hub import seen
from moehub.merge.source import Found, Source, find
from moehub.signing.keyring import Keyring

_COMPARING = 9
"""The step that compares with generic text and with others."""
_COMPANY = 7
"""Others that an expert is compared with, at most: each costs a table of its own."""


@dataclass(frozen=True)
class Entrant:
    """Somebody at the entrance."""

    found: Found
    verdict: Verdict
    source: Source | None
    """The expert; None where the gate refused it."""

    @property
    def refusals(self) -> list[str]:
        """Every refusal as a line that names the expert as it was asked for."""
        return [f"{self.found.reference}: {refusal}" for refusal in self.verdict.refusals]


def enter(references: Sequence[str], at_hand: AtHand, *, hub: str | None, workspace: Path) -> list[Entrant]:
    """Return what the gate says about each expert by itself; what comes from a hub lands below `workspace`.

    Raises:
        MergeError: a reference names neither a folder nor a repo.
        HubError: the hub cannot be reached or refuses.
        SigningError: a publisher's key is pinned, and cannot be used or nothing to verify with is installed.
    """
    entrants = []
    with progress("checking experts", len(references)) if references else nullcontext() as advance:
        for number, reference in enumerate(references):
            entrants.append(look(find(reference, hub=hub, workspace=workspace / str(number)), at_hand))
            advance(1, Path(reference).name)  # type: ignore[misc]  # there is a bar where there are references
    return entrants


def look(found: Found, at_hand: AtHand) -> Entrant:
    """Return what the gate says about an expert by itself: every step but the last.

    Raises:
        SigningError: its publisher's key is pinned, and cannot be used or nothing to verify with is installed.
    """
    at_hand = dataclasses.replace(
        at_hand, repo=found.repo, least_version=found.least_version, keyring=Keyring.open_default()
    )
    checks = [check for check in registered() if check.step < _COMPARING]
    verdict = examine(found.folder, at_hand, name=found.reference, checks=checks)
    if not verdict.admitted:
        return Entrant(found, verdict, None)
    # The gate has compared the files with the card.
    return Entrant(found, verdict, Source(found.reference, found.commit, Expert(found.folder, read_card(found.folder))))


def look_again(entrant: Entrant, at_hand: AtHand, company: Sequence[Source]) -> Entrant:
    """Return what the gate says about an entrant beside generic text and some others; who is refused stays refused."""
    source = entrant.source
    if source is None:
        return entrant
    others: dict[str, Statistics] = {}
    for other in company:
        if other is not source and len(others) < _COMPANY and other.statistics is not None:
            others[other.expert.name] = other.statistics
    checks = [check for check in registered() if check.step >= _COMPARING]
    beside = dataclasses.replace(at_hand, others=others)
    later = examine(entrant.found.folder, beside, name=entrant.found.reference, checks=checks)
    if later.admitted and entrant.found.repo is not None and entrant.found.hub is not None:
        seen.remember(entrant.found.hub, entrant.found.repo, source.expert.card.version)
    return Entrant(entrant.found, entrant.verdict + later, source if later.admitted else None)


def admitted(reference: str, *, hub: str | None, workspace: Path) -> Source:
    """Return the expert that a folder or `org/name[@rev]` names, whatever its base.

    Raises:
        AdmissionError: the gate refuses it.
        MergeError: there is neither a folder nor such a repo.
        HubError: the hub cannot be reached or refuses.
    """
    (entrant,) = enter([reference], AtHand(), hub=hub, workspace=workspace)
    if entrant.source is None:
        raise AdmissionError(listed("this expert is not admitted:", entrant.refusals))
    return entrant.source
