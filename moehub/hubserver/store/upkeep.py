"""One at a time: collections, checks and backups keep out of each other's way, in whatever process they run.

Commits and uploads never wait for them.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from moehub.errors import HubError

LOCK = "upkeep.lock"


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep other upkeep of a hub away for as long as the block lasts; a killed process keeps nobody away.

    Raises:
        HubError: there is some at the moment.
    """
    with contextlib.ExitStack() as stack:
        if os.access(root, os.W_OK):  # elsewhere nobody can remove anything
            try:
                stack.enter_context(FileLock(root / LOCK, timeout=0))
            except Timeout as error:
                raise HubError(
                    f"{root} is being collected, checked or backed up at the moment: wait until that is done"
                ) from error
        yield
