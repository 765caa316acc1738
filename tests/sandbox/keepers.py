import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from moehub.sandbox import Keeper, Limits, Outcome

ORDINARY = "1234"
"""A user that is not root."""
MODES = ("everything", "ordinary", "no landlock", "no namespaces")


@cache
def python() -> str | None:
    """Return a Python that every user can start, if there is one."""
    for place in ("/usr/bin/python3", "/usr/local/bin/python3", sys.executable):
        path = str(Path(place).resolve())
        command = [
            *_as_ordinary(),
            path,
            "-I",
            "-S",
            "-c",
            "import sys, decimal, sysconfig; print(sys.version_info >= (3, 11))",
        ]
        if Path(path).exists() and subprocess.run(command, capture_output=True, check=False).stdout == b"True\n":
            return path
    return None


def _as_ordinary() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, f"--reuid={ORDINARY}", f"--regid={ORDINARY}", "--clear-groups"] if setpriv else ["/bin/false"]


@contextmanager
def keeper(mode: str) -> Iterator[Keeper]:
    """Yield a keeper with some of the walls, each of the sets that are enough; who is not root is ordinary."""
    without = {"no landlock": "landlock", "no namespaces": "namespaces"}.get(mode, "")
    command = [sys.executable]
    if os.geteuid() == 0 and mode in {"ordinary", "no namespaces"}:
        if (path := python()) is None:
            pytest.skip("there is no Python that every user can start")
        command = [*_as_ordinary(), path] if mode == "ordinary" else [path]
    made = Keeper(without, command)
    try:
        yield made
    finally:
        made.end()


def attempt(one: Keeper, code: str, tests: str | list[str] = "", **limits: float) -> Outcome:
    """Run a piece of code with small limits."""
    return one.run(code, tests, replace(Limits(seconds=5), **limits))  # type: ignore[arg-type]
