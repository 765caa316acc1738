"""Step 1: the names in the folder. Nothing is opened, and no link is followed."""

import stat
from collections.abc import Iterator
from pathlib import PurePath

from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, check
from moehub.admission.policy import Policy
from moehub.admission.strict import quoted
from moehub.admission.subject import Subject
from moehub.card import ADAPTER_CONFIG, ADAPTER_WEIGHTS, CARD_FILE, EXPERT_FILES

_PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".npy", ".npz", ".pickle", ".pkl", ".pt", ".pth"})
_REMOVE = "remove it and publish the expert again"


@check(1)
def missing_file(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """It has a card, an adapter's configuration and its weights."""
    if CARD_FILE not in subject.modes:
        cure = "`moehub train-expert` makes one, and finishes an interrupted training with --resume"
        yield Fault(f"it is no expert, because {CARD_FILE} is missing", cure)
        return
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if name not in subject.modes:
            yield Fault(f"{name} is missing", "publish the expert again, whole")


@check(1)
def stray_file(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Nothing but an expert's files lies in its folder."""
    for name in subject.modes:
        if name not in EXPERT_FILES and not _is_hidden(name) and not _is_pickle(name):
            yield Fault(f"{quoted(name)} does not belong in an expert folder", _REMOVE)


@check(1)
def hidden_file(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """No file is hidden: signatures leave some of them out."""
    for name in subject.modes:
        if _is_hidden(name):
            yield Fault(f"{quoted(name)} is a hidden file, which no signature needs to cover", _REMOVE)


@check(1)
def pickle_file(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """No file is a pickle: opening one runs what its author wrote."""
    for name in subject.modes:
        if _is_pickle(name) and not _is_hidden(name):
            yield Fault(f"{quoted(name)} is a pickle, which runs code when it is opened", _REMOVE)


@check(1)
def linked_file(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """No file is a link, which may lead anywhere on the reader's machine."""
    for name, mode in subject.modes.items():
        if stat.S_ISLNK(mode):
            yield Fault(f"{quoted(name)} is a symbolic link", "put the file itself in its place")


@check(1)
def special_file(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:
    """Every file of an expert is a regular file: no folder, pipe, socket or device."""
    for name, mode in subject.modes.items():
        if name in EXPERT_FILES and not stat.S_ISREG(mode) and not stat.S_ISLNK(mode):
            yield Fault(f"{name} is no regular file", "put a file in its place")


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_pickle(name: str) -> bool:
    return PurePath(name.lower()).suffix in _PICKLES
