"""The folder that holds everything of Flower's in a federation's output: logs, pids, state, and the desks."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from moehub.errors import FederationError

PLACE = ".flower"
"""Its name below the output."""
DESKS = "desks"
_LOCK = "lock"
_CURE = "wait for its end, stop it with `moehub federate stop`, or name another --output"


@contextlib.contextmanager
def held(place: Path, *, who: str = "a federation", cure: str = _CURE) -> Iterator[None]:
    """Keep every other command away; `who` and `cure` are what they are told.

    Raises:
        FederationError: one is there already.
    """
    place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FederationError(f"{who} is running in {place.parent}: {cure}") from error
    try:
        yield
    finally:
        lock.release()


def clear(place: Path, *, resume: bool) -> None:
    """Remove what an earlier run left; the desks hold answers that a resumed run still takes."""
    for path in place.iterdir():
        if path.name == _LOCK or (path.name == DESKS and resume):
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
