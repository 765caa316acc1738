"""The process in which the gate runs, apart from the server: whatever a hostile file does to a parser, it does here.

A question is one line of JSON on standard input, its answer one line on standard output; nothing is pickled. Questions:

    {"do": "peek", "card": FILE}                      → what a card claims: base, version
    {"do": "identify", "folder": FOLDER}              → the digests of a base
    {"do": "examine", "folder": FOLDER, "name": …, "at_hand": …}   → the gate's verdict

Each comes with `seconds` and `memory` (bytes): one that takes longer ends the process, one that needs more fails.
The process ends with the server, even one that was killed: it sees its standard input close.
"""

import contextlib
import json
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moehub.admission.at_hand import AtHand
from moehub.base import Base
from moehub.card import BasePin

if TYPE_CHECKING:
    from moehub.experts.statistics import Statistics

_LARGEST_CARD = 1 << 20
_GRACE = 2.0
"""Seconds after its time that the process ends itself, should nobody be left to do so."""
_NICE = 5
_COUNTED: "dict[tuple[str, str], Statistics]" = {}
"""The hub's generic text and a tokenizer's digest → the statistics of that text."""


def main() -> None:
    """Answer questions until standard input closes."""
    os.environ["HF_HUB_OFFLINE"] = "1"  # set before huggingface_hub is imported: nothing is fetched here
    os.nice(_NICE)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    while True:
        question = questions.get()
        _, most = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (question["memory"], most))
        signal.setitimer(signal.ITIMER_REAL, question["seconds"] + _GRACE)  # not handled: it ends the process
        answers.write(json.dumps(_answer(question)).encode() + b"\n")
        answers.flush()
        signal.setitimer(signal.ITIMER_REAL, 0)


def _listen(questions: "queue.SimpleQueue[dict[str, Any]]") -> None:
    for line in sys.stdin.buffer:
        questions.put(json.loads(line))
    os._exit(0)


def _answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the answer, or under `failed` why there is none."""
    try:
        match question["do"]:
            case "peek":
                return _peek(Path(question["card"]))
            case "identify":
                return _identify(Path(question["folder"]))
            case _:
                return _examine(question)
    except MemoryError:
        return {"failed": "memory"}
    except Exception as error:  # noqa: BLE001 (whatever a hostile file provokes: it is refused for it)
        # torch words it as a RuntimeError when it cannot have memory.
        return {"failed": "memory" if "allocate memory" in str(error) else f"{type(error).__name__}: {error}"[:500]}


def _peek(card: Path) -> dict[str, Any]:
    """Return what a card claims before anybody checked it, as far as it can be read."""
    values: Any = None
    if card.is_file() and card.stat().st_size <= _LARGEST_CARD:
        with contextlib.suppress(ValueError, RecursionError):
            values = json.loads(card.read_bytes())
    values = values if isinstance(values, dict) else {}
    base = values.get("base") if isinstance(values.get("base"), dict) else {}
    return {
        "digest": _text(base.get("digest")),
        "reference": _text(base.get("reference")),
        "version": values["version"] if type(values.get("version")) is int else None,
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) and len(value) <= 200 else ""


def _identify(folder: Path) -> dict[str, Any]:
    """Return the digests of the base in a folder, empty where there is none."""
    from moehub.errors import BaseModelError

    try:
        pin = Base(folder, folder.name, None).pin()
    except BaseModelError as error:
        return {"digest": "", "tokenizer": "", "reason": str(error)}
    return {"digest": pin.digest, "tokenizer": pin.tokenizer}


def _examine(question: Mapping[str, Any]) -> dict[str, Any]:
    from moehub.admission.gate import examine

    return examine(Path(question["folder"]), _at_hand(question["at_hand"]), name=question["name"]).to_dict()


def _at_hand(values: Mapping[str, Any]) -> AtHand:
    from moehub.signing.keyring import Keyring

    common: dict[str, Any] = {
        "repo": values["repo"],
        "least_version": values["least_version"],
        "keyring": Keyring.open_default(),
    }
    if values["base"] is None:
        return AtHand(**common)
    base, null = values["base"], values["null"]
    pin = BasePin(base["reference"], base["digest"], base["tokenizer"])
    folder = Path(base["folder"])
    return AtHand(
        pin=pin,
        base_config=json.loads((folder / "config.json").read_bytes()),
        base=Base(folder, base["reference"], None) if base["trusted"] else None,
        canary=Path(null) if null else None,
        null=_counted(null, folder, pin.tokenizer) if null else None,
        **common,
    )


def _counted(text: str, folder: Path, tokenizer: str) -> "Statistics":
    """Return the statistics of the hub's generic text in a base's tokens."""
    if (text, tokenizer) in _COUNTED:
        return _COUNTED[text, tokenizer]
    from moehub.experts import data, tokens
    from moehub.experts.faces import count_generic
    from moehub.experts.settings import TrainConfig

    encoder = Base(folder, folder.name, None).load_tokenizer()
    documents = [one.seen for one in tokens.encode(encoder, data.read([Path(text)]))]
    usual = TrainConfig()
    counted = count_generic(
        documents,
        tokenizer=tokenizer,
        vocabulary=len(encoder),
        pair_bits=usual.pair_bits,
        triple_bits=usual.triple_bits,
    )
    _COUNTED[text, tokenizer] = counted
    return counted


if __name__ == "__main__":
    main()
