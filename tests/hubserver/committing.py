"""Committers in processes of their own."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def committing(root: Path, *repos: str) -> Iterator[list[int]]:
    """Commit to repos, each in a process of its own, for as long as the block lasts; then fill in how often."""
    made: list[int] = []
    with contextlib.ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.hubserver.committer", str(root), repo],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    cwd=Path(__file__).parents[2],
                )
            )
            for repo in repos
        ]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        yield made
        made += [int(child.communicate(timeout=60)[0]) for child in children]
        assert [child.returncode for child in children] == [0] * len(children)
