"""The process in which the code runs: it runs it as a module, then does what the tests ask of it."""

import contextlib
import os
import sys
import traceback
import types
from typing import NoReturn

from moehub.sandbox.exchange import GoneError, Line

NAME = "solution"
"""What the module is called where there are tests."""


def run(code: str, line: Line, *, tested: bool) -> NoReturn:
    """Run the code, tell the tests what it defines, serve them, and end the process."""
    module = types.ModuleType(NAME if tested else "__main__")
    sys.modules[module.__name__] = module
    try:
        exec(compile(code, f"<{NAME}>", "exec"), module.__dict__)  # noqa: S102 (that is what a sandbox is for)
    except BaseException as error:  # noqa: BLE001 (SystemExit too: the code did not come to its end)
        _show(error)
        message: dict[str, object] = {"fell": type(error).__name__}
    else:
        names = {name: value for name, value in vars(module).items() if not name.startswith("__")}
        message = {"defines": {name: _coded(value, line) for name, value in names.items()} if tested else {}}
    with contextlib.suppress(GoneError):
        line.send(message)
        _flush()
        line.serve()
    os._exit(0)


def _coded(value: object, line: Line) -> object:
    """Return a value as JSON, or what stands for one that cannot be copied."""
    try:
        return line.encode(value)
    except BaseException:  # noqa: BLE001 (the code's own classes can raise anything)
        return line.keep(value)


def _show(error: BaseException) -> None:
    with contextlib.suppress(BaseException):
        traceback.print_exception(error)
    _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
