"""The gate's process with checks that do what their expert's name says: hang, hog memory, die; and with false answers.

Every examination is noted in the file that TROUBLED_LOG names, as one line of JSON.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from moehub.admission import gate
from moehub.admission.at_hand import AtHand
from moehub.admission.check import Fault, NotAtHandError, check
from moehub.admission.policy import Policy
from moehub.admission.subject import Subject
from moehub.card import CARD_FILE
from moehub.hubserver import gate_process

LOG = "TROUBLED_LOG"
COMMAND = (
    sys.executable,
    "-c",
    "import sys; sys.path[:0] = [sys.argv[1]]; from tests.hubserver.troubled_gate import main; main()",
    str(Path(__file__).parents[2]),
)


@check(step=1)
def noted(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:  # noqa: ARG001 (a check's signature)
    """It is written down."""
    entry = {
        "files": sorted(path.relative_to(subject.folder).as_posix() for path in subject.folder.rglob("*.*")),
        "repo": at_hand.repo,
        "least_version": at_hand.least_version,
        "pin": at_hand.pin.digest if at_hand.pin else None,
        "config": at_hand.base_config is not None,
        "base": at_hand.base is not None,
        "null": at_hand.null is not None and int(at_hand.null.unigrams.sum()) > 0,
    }
    with Path(os.environ[LOG]).open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")
    if not (subject.folder / CARD_FILE).is_file():
        yield Fault("there is no card", "add one")


@check(step=2)
def troubled(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:  # noqa: ARG001 (a check's signature)
    """It does no harm."""
    match subject.card.name:
        case "bad":
            yield Fault("its name is 'bad', expected a good one", "rename it")
        case "hang":
            time.sleep(60)
        case "hog":
            bytearray(6 << 30)  # never touched: without a limit nothing happens
        case "die":
            os._exit(3)
        case "raise":
            raise ValueError("something that no check foresaw")


@check(step=3)
def grounded(subject: Subject, at_hand: AtHand, policy: Policy) -> Iterator[Fault]:  # noqa: ARG001 (a check's signature)
    """It has a base."""
    if at_hand.pin is None:
        raise NotAtHandError("no base at hand")
    yield from ()


def main() -> None:
    """Answer questions with the checks above."""
    gate.registered = lambda: (noted, troubled, grounded)  # type: ignore[attr-defined,assignment]
    gate_process._examine = _examine
    gate_process.main()


_true = gate_process._examine


def _examine(question: Mapping[str, Any]) -> dict[str, Any]:
    verdict = _true(question)
    lies: dict[str, dict[str, Any]] = {
        "acme/lie": {**verdict, "admitted": 1},
        "acme/hide": {**verdict, "refusals": [{"code": "bad"}]},
        "acme/empty": {},
    }
    return lies.get(question["name"], verdict)
