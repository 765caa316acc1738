"""A process that uploads and commits as fast as it can, until its standard input is closed.

python -m tests.hubserver.committer ROOT REPO      prints how many commits it made
"""

import secrets
import select
import sys
from pathlib import Path

from moehub.hubserver.store.store import open_store
from tests.hubserver.pushes import push


def main(root: Path, repo: str) -> None:
    """Each commit holds a file of its own, one that every repo has, and one that nobody has any more."""
    store, made = open_store(root), 0
    print("ready", flush=True)  # noqa: T201 (whoever started it waits for this)
    while not select.select([sys.stdin], [], [], 0)[0]:
        push(
            store,
            repo,
            {"own": secrets.token_bytes(100), "shared.safetensors": b"shared", f"f{made % 5}": b"%d" % made},
        )
        made += 1
    print(made)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
