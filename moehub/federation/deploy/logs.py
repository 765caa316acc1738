"""The logs of a federation's processes."""

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from moehub.errors import FederationError
from moehub.federation.deploy.guard import SERVER_APP
from moehub.federation.deploy.place import PLACE

_POLL = 0.3


def read(folder: Path, name: str | None = None, *, lines: int, follow: bool) -> Iterator[str]:
    """Yield the last lines of a log, and with `follow` those that are written from now on.

    Raises:
        FederationError: there is no such log.
    """
    path = folder / PLACE / "logs" / f"{name or SERVER_APP}.log"
    known = sorted(each.stem for each in path.parent.glob("*.log"))
    if path.stem not in known:
        found = f"; there are {', '.join(known)}" if known else ": name the folder of a federation with --state"
        raise FederationError(f"there is no log of {path.stem} in {folder}{found}")
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from (line.rstrip("\n") for line in deque(file, lines))
        while follow:
            line = file.readline()
            if line:
                yield line.rstrip("\n")
            else:
                time.sleep(_POLL)
