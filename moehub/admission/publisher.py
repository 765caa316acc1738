"""Step 7: who signed the expert, and whether it is an old one that is passed off as new."""

from collections.abc import Iterator

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, NotAtHandError, check
from moehub.admission.policy import Policy
from moehub.admission.subject import Subject
from moehub.card import SIGNATURE_FILE
from moehub.signing.signature import faults


@check(7)
def signature(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Every file is signed by the key that is pinned for its publisher, for the repo that it comes from.

    Raises:
        NotAtHandError: it comes from no repo, or nobody pinned a key for its publisher.
        SigningError: a key is pinned, and cannot be used or nothing to verify with is installed.
    """
    if at_hand.repo is None:
        raise NotAtHandError("it comes from no repo, so nobody knows who should have signed it: name it as org/name")
    pin = at_hand.keyring.for_repo(at_hand.repo) if at_hand.keyring else None
    if pin is None:
        publisher = at_hand.repo.partition("/")[0]
        raise NotAtHandError(
            f"no key is pinned for {publisher}: ask {publisher} for the public key, "
            f"and run `moehub keys trust {publisher} FILE`"
        )
    for fault in faults(subject.folder, SIGNATURE_FILE, repo=at_hand.repo, key=pin.key):
        yield Fault(fault, f"pull it again, or ask {pin.publisher} to publish it with `moehub push --sign`")


@check(7)
def version(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Its version is no lower than the highest that was seen of it.

    Raises:
        NotAtHandError: none was seen before.
    """
    if at_hand.least_version is None:
        raise NotAtHandError("no other version of it was seen here: what is pulled from a hub is remembered")
    if subject.card.version < at_hand.least_version:
        yield Fault(
            f"it is version {subject.card.version}, but version {at_hand.least_version} was seen before",
            "ask its publisher whether the older one is meant, and name its commit then, as in org/name@COMMIT",
        )
