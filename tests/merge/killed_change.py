"""Add an expert to a MoE again and again, each time in a child that is killed a little later; print what was left.

python -m tests.merge.killed_change MOE EXPERT WORKSPACE
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import torch

from moehub import files
from moehub.merge.merging import prepare_change

TOUCHES = {"open", "os.rename", "os.link", "os.chmod", "os.mkdir", "os.remove", "os.rmdir", "ctypes.dlsym"}
"""What a process does to files, as Python reports it just before it happens; the last is the exchange of folders."""
NEVER = -1


def change(moe: Path, expert: Path, *, die_at: int) -> tuple[int, int]:
    """Add the expert in a child that is killed at its n-th touch of the MoE's surroundings.

    Returns:
        How often it touched them, and how it ended.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child:
        os.close(writer)
        with os.fdopen(reader, "rb") as told:
            touches = len(told.read())
        return touches, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    count, place = 0, str(moe.parent)

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in TOUCHES and (event == "ctypes.dlsym" or any(str(one).startswith(place) for one in arguments)):
            os.write(writer, b".")
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    with prepare_change(moe, add=(str(expert),)) as prepared:
        prepared.write()
    os._exit(0)


def main(moe: Path, expert: Path, workspace: Path) -> None:
    """Print the digests before and after, and (point, how it ended, digest) for each point."""
    torch.set_num_threads(1)  # a thread does not survive a fork
    old = shutil.copytree(moe, workspace / "old")
    before = files.tree_digest(moe)
    with prepare_change(moe, add=(str(expert),)):
        pass  # what is remembered from call to call is remembered by every child
    touches, ended = change(moe, expert, die_at=NEVER)
    after = files.tree_digest(moe)
    outcomes = []
    # Some points of the building, all of those about the exchange and the tidying up.
    for point in sorted({*range(1, touches, max(1, touches // 12)), *range(max(1, touches - 20), touches + 1)}):
        shutil.rmtree(moe)
        shutil.copytree(old, moe)
        _, died = change(moe, expert, die_at=point)
        outcomes.append((point, died, files.tree_digest(moe)))
    sys.stdout.write(json.dumps({"before": before, "after": after, "ended": ended, "outcomes": outcomes}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
