"""The working folder of a training: `OUTPUT.training`, beside the expert that it will become.

It holds `run.json`, which says what is being trained with what, and the trainer's checkpoints. A checkpoint
counts once `moehub.json` stands in it, which is written last: one that was cut short is passed over.
Checkpoints are private to this machine and are removed when the expert is finished.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from moehub import files
from moehub.errors import TrainingError, listed
from moehub.experts.settings import TrainConfig

_RUN = "run.json"
_MARK = "moehub.json"
_FULL = ("os error 28", "No space left", "PytorchStreamWriter failed", "file write failed")
"""How safetensors and torch say that nothing more could be written."""
_FREE = frozenset(
    {"license", "suppress_below", "pair_bits", "triple_bits", "features", "save_every", "private_delta", "private_clip"}
)
"""Settings that may change between interruption and resumption: no step depends on them."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint of the trainer."""

    path: Path
    step: int
    """Optimizer steps taken."""
    tokens: int
    """Tokens learned so far."""
    seconds: float
    """Wall time spent so far."""
    nats: float = 0.0
    """Sum of the losses of those tokens, each as it was when it was learned."""


def working_folder(output: Path) -> Path:
    """Return the folder that a training of `output` works in."""
    return beside(output, "training")


def beside(output: Path, ending: str) -> Path:
    """Return the place next to `output` whose name has one more ending."""
    whole = output.absolute()
    return whole.with_name(f"{whole.name}.{ending}")


def fingerprint(*, base: str, examples: Iterable[str], config: TrainConfig, processes: int) -> dict[str, Any]:
    """Return what every step of a training depends on: the base's digest, the examples' digests, the settings."""
    data = hashlib.sha256("\n".join(examples).encode()).hexdigest()
    settings = {name: value for name, value in dataclasses.asdict(config).items() if name not in _FREE}
    whole: dict[str, Any] = json.loads(files.to_json(settings))
    return {"base": base, "data": data, "processes": processes, **whole}


def begin(folder: Path, run: dict[str, Any]) -> None:
    """Empty the working folder and write down what is being trained."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files.write_text(folder / _RUN, files.to_json(run))


def last(folder: Path, run: dict[str, Any]) -> Checkpoint | None:
    """Return the last whole checkpoint of the training described by `run`, or None if there is none.

    Raises:
        TrainingError: the folder belongs to another training; everything that differs is listed.
    """
    try:
        before = json.loads((folder / _RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    differing = [
        f"{name} was {_short(before.get(name))}, now it is {_short(run.get(name))}"
        for name in sorted({*before, *run})
        if before.get(name) != run.get(name)
    ]
    if differing:
        raise TrainingError(
            listed(
                f"the training in {folder} cannot be resumed, because it is another one "
                "(give what you gave before, or leave out --resume to start anew):",
                differing,
            )
        )
    return max(_whole(folder), key=lambda one: one.step, default=None)


def mark(path: Path, *, step: int, tokens: int, seconds: float, nats: float = 0.0) -> None:
    """Declare the checkpoint in `path` whole."""
    files.write_text(path / _MARK, files.to_json({"step": step, "tokens": tokens, "seconds": seconds, "nats": nats}))


@contextlib.contextmanager
def kept_when_full(folder: Path) -> Iterator[None]:
    """Turn the ways in which libraries say that a disk is full into one sentence.

    Raises:
        TrainingError: the disk is full; whole checkpoints in `folder` were kept, broken ones removed.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
        if not full and not any(sign in str(error) for sign in _FULL):
            raise
        _remove_broken(folder)
        raise TrainingError(
            f"the disk that holds {folder} is full: free some space and go on with --resume; "
            "whole checkpoints were kept"
        ) from error


def _remove_broken(folder: Path) -> None:
    whole = {one.path for one in _whole(folder)}
    for path in folder.glob("checkpoint-*"):
        if path not in whole:
            shutil.rmtree(path, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove the working folder of a training that is finished."""
    shutil.rmtree(folder, ignore_errors=True)


def _whole(folder: Path) -> list[Checkpoint]:
    found = []
    for path in folder.glob(f"checkpoint-*/{_MARK}"):
        try:
            found.append(Checkpoint(path.parent, **json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError):
            continue
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
