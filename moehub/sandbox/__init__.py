"""Runs Python code that nobody trusts, with tests, behind walls that the Linux kernel offers to everybody.

    run, run_many ── running ──▶ keeper ── walls: namespaces · landlock · seccomp (kernel, syscalls)
                                   ├──▶ candidate   the code          ┐ exchange, remote
                                   └──▶ examiner    the tests         ┘

What is held, by what, and what is not, stands in docs/sandbox.md.
"""

from moehub.sandbox.running import Keeper, Protection, close, protections, run, run_many
from moehub.sandbox.trial import Limits, Outcome, Status, Tests

__all__ = [
    "Keeper",
    "Limits",
    "Outcome",
    "Protection",
    "Status",
    "Tests",
    "close",
    "protections",
    "run",
    "run_many",
]
