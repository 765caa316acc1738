"""`unit-tests`: the answer's code passes the task's tests, in the sandbox."""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from moehub import sandbox
from moehub.errors import ConfigError, SandboxError
from moehub.experts.examples import Task
from moehub.experts.rewards.reward import OfField, Opener, Scores, text_of
from moehub.sandbox import Limits, Tests

_BLOCK = re.compile(r"^[ \t]*```[ \t]*(\w*)[^\n]*\n(.*?)(?:^[ \t]*```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_PYTHON = frozenset({"", "py", "python", "python3"})


@dataclass(frozen=True)
class UnitTests(OfField):
    """Options of `unit-tests`, and the reward itself.

    Raises:
        ConfigError: a limit is too small.
    """

    name: ClassVar[str] = "unit-tests"
    field: str = "tests"
    """The task's field that holds Python with asserts or test functions, or a list of which each text is a test."""
    entry: str = "entry_point"
    """The task's field, where there is one, that names what tests of the form `check(candidate)` are given."""
    count: Literal["share", "all"] = "share"
    """The share of tests that pass, or 1 only if all do."""
    continues: bool = False
    """Whether an answer is the prompt's code gone on with, not code of its own."""
    seconds: float = 10.0
    memory: float = 512.0
    """MiB."""
    workers: int | None = None
    """Answers that are tested at once; by default one for each processor."""

    def __post_init__(self) -> None:
        self._limits()
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"workers = {self.workers}, expected at least 1")

    def open(self, opener: Opener) -> "UnitTests":  # noqa: ARG002 (it asks no model)
        """Return the reward.

        Raises:
            SandboxError: code cannot be run on this machine without danger.
        """
        sandbox.protections()
        return self

    def complaint(self, value: Any) -> str | None:
        """Return what is wrong with a task's tests, or None."""
        texts = [value] if isinstance(value, str) else value
        if (
            not isinstance(texts, list)
            or not texts
            or not all(isinstance(text, str) and text.strip() for text in texts)
        ):
            return f"is {str(value)[:40]!r}, expected Python, or a list of it"
        for text in texts:
            try:
                ast.parse(text)
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                return f"is no Python: {error}"
        return None

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> Scores:
        """Return how many of its task's tests each answer passes, None for tasks without.

        Raises:
            SandboxError: code cannot be run on this machine any more.
        """
        known = [index for index, task in enumerate(tasks) if self.known(task)]
        outcomes = sandbox.run_many(
            [self._code(tasks[index], answers[index]) for index in known],
            [self._tests(tasks[index]) for index in known],
            limits=self._limits(),
            workers=self.workers,
        )
        scores: Scores = [None] * len(tasks)
        for index, outcome in zip(known, outcomes, strict=True):
            if outcome.status == "refused":
                raise SandboxError(outcome.stderr)
            scores[index] = float(outcome.status == "passed") if self.count == "all" else outcome.share
        return scores

    def _limits(self) -> Limits:
        return Limits(seconds=self.seconds, memory=int(self.memory * (1 << 20)))

    def _code(self, task: Task, answer: str) -> str:
        code = code_of(answer)
        return text_of(task.prompt) + code if self.continues and code == answer else code

    def _tests(self, task: Task) -> Tests:
        tests, entry = task.fields[self.field], task.fields.get(self.entry)
        if isinstance(tests, str) and isinstance(entry, str) and entry.isidentifier() and _waits(tests):
            return f"{tests}\ncheck({entry})\n"
        return list(tests) if isinstance(tests, list) else str(tests)


def code_of(answer: str) -> str:
    """Return the Python of an answer: its blocks between ``` marks, or, without any, all of it."""
    blocks = [block for language, block in _BLOCK.findall(answer) if language.lower() in _PYTHON]
    return "\n".join(blocks) if blocks else answer


def _waits(tests: str) -> bool:
    """Return whether tests define `check` and leave the calling to others."""
    try:
        body = ast.parse(tests).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    defined = any(isinstance(node, ast.FunctionDef) and node.name == "check" for node in body)
    called = any(ast.unparse(node).startswith("check(") for node in body if isinstance(node, ast.Expr))
    return defined and not called
