"""The process in which the tests run, apart from the code: what passes is decided and said here.

A list of tests is run one after another in one namespace, and each text is one test. In a single text, every `assert`
at its top, every function `test…` and every method `test…` of a `TestCase` is a test, and what stands between is run in
order; a text without any is one test.
"""

import ast
import builtins
import contextlib
import functools
import io
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from moehub.sandbox import candidate
from moehub.sandbox.exchange import GoneError, Line

NAME = "tests"
Say = Callable[[dict[str, Any]], None]
"""Sends a message to the keeper."""
_LONGEST = 500
_TRUSTED = frozenset(dir(builtins)) | sys.stdlib_module_names
"""Names by which tests judge; a code that defines them must not judge itself."""
_CALLABLE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType)


def examine(tests: str | list[str], line: Line, say: Say) -> NoReturn:
    """Wait until the code has run, test it, say what came of each test, and end the process."""
    with contextlib.suppress(GoneError):
        message = line.wait("fell", "defines")
        if "fell" in message:
            say({"memory": message["fell"] == "MemoryError"})
        else:
            say({"ran": True})
            defined = {name: line.decode(value) for name, value in message["defines"].items()}
            _run(tests, _seen(defined, tests), say)
    say({"end": True})
    os._exit(0)


def may(operation: str, thing: Any, attribute: Any) -> bool:
    """Return what the code may do to things of the tests: call what it was given, and use objects of their classes."""
    kind = thing if isinstance(thing, type) else type(thing)
    own = kind.__module__ == NAME and not _is_case(kind)
    if operation == "hold":
        return own or isinstance(thing, _CALLABLE) or hasattr(kind, "__next__")
    if operation in {"get", "set", "del"}:
        return own and isinstance(attribute, str) and not attribute.startswith("_")
    return own or (operation == "call" and isinstance(thing, _CALLABLE)) or operation in {"next", "iter"}


def _seen(defined: dict[str, Any], tests: str | list[str]) -> dict[str, Any]:
    """Return the names of the code that the tests see: `abs` or `math` of its own only if nothing else is tested."""
    used: set[str] = set()
    for text in [tests] if isinstance(tests, str) else tests:
        with contextlib.suppress(SyntaxError):
            used |= {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
    if not used & (defined.keys() - _TRUSTED):
        return defined
    return {name: value for name, value in defined.items() if name not in _TRUSTED or type(value) is types.ModuleType}


def _run(tests: str | list[str], defined: dict[str, Any], say: Say) -> None:
    module = types.ModuleType(NAME)
    sys.modules[NAME] = module
    sys.modules[candidate.NAME] = types.ModuleType(candidate.NAME)
    vars(sys.modules[candidate.NAME]).update(defined)
    vars(module).update(defined)
    try:
        pieces = _pieces(tests)
    except SyntaxError as error:
        say({"test": False, "why": f"the tests are no Python: {error}"})
        return
    for tree, is_test in pieces:
        why = _attempt(functools.partial(_execute, tree, vars(module)), ast.unparse(tree))
        if is_test or why is not None:
            _tell(why, say)
        if why is not None and not is_test:
            return
    if isinstance(tests, str):
        for name, function in _functions(vars(module)):
            _tell(_attempt(function, name), say)


def count(tests: str | Sequence[str]) -> int:
    """Return how many tests there are."""
    if not isinstance(tests, str):
        return len(tests)
    with contextlib.suppress(SyntaxError):
        tree = ast.parse(tests)
        inner = [node for node in tree.body if isinstance(node, ast.ClassDef)]
        named = [
            node
            for body in (tree.body, *(each.body for each in inner))
            for node in body
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test")
        ]
        return max(1, len(named) + sum(isinstance(node, ast.Assert) for node in tree.body))
    return 1


def _pieces(tests: str | list[str]) -> list[tuple[ast.Module, bool]]:
    """Return what is run in order, each with whether it is a test."""
    if not isinstance(tests, str):
        return [(ast.parse(test), True) for test in tests]
    tree = ast.parse(tests)
    asserted = [(ast.Module([node], []), isinstance(node, ast.Assert)) for node in tree.body]
    named = any(isinstance(node, ast.FunctionDef) and node.name.startswith("test") for node in ast.walk(tree))
    return asserted if named or any(is_test for _, is_test in asserted) else [(tree, True)]


def _execute(tree: ast.Module, names: dict[str, Any]) -> None:
    exec(compile(tree, f"<{NAME}>", "exec"), names)  # noqa: S102 (in the sandbox, as the code)


def _functions(names: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield every test function and every method of a TestCase that the tests define."""
    for name, value in list(names.items()):
        if isinstance(value, type) and value.__module__ == NAME and _is_case(value):
            for method in sorted(one for one in dir(value) if one.startswith("test")):
                yield f"{name}.{method}", functools.partial(_run_case, value, method)
        elif name.startswith("test") and isinstance(value, types.FunctionType) and not value.__code__.co_argcount:
            yield name, value


def _is_case(kind: type) -> bool:
    unittest = sys.modules.get("unittest")
    return unittest is not None and issubclass(kind, unittest.TestCase)


def _run_case(case: Any, method: str) -> None:
    """Run one method of a TestCase; nothing but its success is one."""
    import unittest

    class Result(unittest.TestResult):
        succeeded = False

        def addSuccess(self, test: unittest.TestCase) -> None:  # noqa: ARG002, N802 (unittest's name)
            self.succeeded = True

    result = Result()
    case(method).run(result)
    if not result.succeeded or not result.wasSuccessful():
        told = [*result.failures, *result.errors]
        raise AssertionError(told[0][1].strip().splitlines()[-1] if told else "it was skipped")


def _attempt(do: Callable[[], Any], name: str) -> tuple[str, str] | None:
    """Return None if it works, else the kind of error and a sentence about it."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            do()
    except BaseException as error:  # noqa: BLE001 (whatever it is, the test failed)
        text = f"{name[:_LONGEST]}: {type(error).__name__}"
        with contextlib.suppress(BaseException):
            text += f": {error}"[:_LONGEST] if str(error) else ""
        return type(error).__name__, text
    return None


def _tell(why: tuple[str, str] | None, say: Say) -> None:
    if why is None:
        say({"test": True})
    else:
        say({"test": False, "memory": why[0] == "MemoryError", "why": why[1]})
