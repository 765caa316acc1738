"""The examination of one expert that nobody merges yet: everything the admission gate can say about it here."""

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from moehub import base as bases
from moehub.admission.at_hand import AtHand
from moehub.admission.verdict import Verdict
from moehub.errors import MergeError
from moehub.experts.statistics import Statistics
from moehub.merge.assemble import comparable
from moehub.merge.entrance import look, look_again
from moehub.merge.load import read_moe_config
from moehub.merge.lock import LOCK_FILE, read_lock
from moehub.merge.merging import residents
from moehub.merge.null import keep_null, make_null
from moehub.merge.source import Source, find
from moehub.router.settings import RouterSettings


@dataclass(frozen=True)
class Surroundings:
    """What an expert is examined with; everything may be missing, and the verdict says which checks were not made."""

    base: str | None = None
    """The base that it should belong to: a folder, or `org/name[@revision]` on a hub."""
    canary: Path | None = None
    """Public text that it should not make the base worse on."""
    domain_text: Path | None = None
    """Text of its own domain that it should gain on."""
    null: str | None = None
    """Generic text, or a folder that holds router statistics."""
    beside: Path | None = None
    """The MoE that it is to stand in; its base and its null serve where no others are named."""


def examine_reference(reference: str, surroundings: Surroundings, *, hub: str | None = None) -> Verdict:
    """Return what the gate says about the expert that a folder or `org/name[@rev]` names.

    Raises:
        MoehubError: there is no such expert, base, text or MoE; what is wrong with the expert is in the verdict.
    """
    with tempfile.TemporaryDirectory(prefix="moehub-check-") as workspace:
        at_hand, null, company = _surroundings(surroundings)
        entrant = look(find(reference, hub=hub, workspace=Path(workspace)), at_hand)
        if entrant.source is None:
            return entrant.verdict
        if surroundings.null is not None:
            like, settings = [entrant.source], RouterSettings()
            null = make_null(surroundings.null, at_hand.base, like=like, router=settings, hub=hub).statistics
        return look_again(entrant, dataclasses.replace(at_hand, null=null), company).verdict


def _surroundings(given: Surroundings) -> tuple[AtHand, Statistics | None, list[Source]]:
    """Return what is at hand, the MoE's null, and who is in the MoE."""
    for option, path in (("--canary", given.canary), ("--domain-text", given.domain_text)):
        if path is not None and not path.is_file():
            raise MergeError(f"{option} {path} is no file: give a file of text")
    at_hand = AtHand(canary=given.canary, domain_text=given.domain_text)
    null, company = None, list[Source]()
    if given.beside is not None:
        config, lock = read_moe_config(given.beside), read_lock(given.beside / LOCK_FILE)
        at_hand = dataclasses.replace(at_hand, pin=lock.base, base_config=config.base_config)
        kept = keep_null(given.beside, lock)
        null, company = None if kept is None else kept.statistics, residents(given.beside, lock)
    if given.base is not None:
        base = bases.find(given.base)
        shapes = comparable(base.load_config().to_diff_dict())
        at_hand = dataclasses.replace(at_hand, pin=base.pin(), base_config=shapes, base=base)
    return at_hand, null, company
