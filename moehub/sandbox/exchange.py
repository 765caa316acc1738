"""What the code and its tests say to each other: they run in two processes, and neither may reach into the other.

Numbers, texts, containers, dates and exceptions cross as copies. Everything else stays where it is, and the other side
holds a `Remote` to it, whose attributes, calls and operators are asked for over the line. After a call, what it did to
containers among its arguments is done to the originals. So the code cannot answer a comparison for the tests: a copy is
compared where the tests run, and a remote thing equals no copy.

A message is four bytes of length and JSON. `{"do": operation, "on": thing, …}` is answered by `{"is": value}` or
`{"raised": exception}`; while one side waits, it may be asked itself.
"""

import collections
import datetime as dt
import decimal
import fractions
import importlib
import json
import socket
import struct
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any

from moehub.sandbox.remote import Remote, awaiting, do, number

Policy = Callable[[str, Any, str], bool]
"""Operation, thing, attribute → whether the other side may do it."""
_LONGEST = 32 << 20
_MUTABLE = (list, dict, set, bytearray)
_BY_REFERENCE = frozenset(
    {"builtins", "collections", "datetime", "decimal", "fractions", "functools", "itertools", "math", "operator"}
)
"""Modules whose classes and functions cross by name."""
_REBUILT: dict[str, Callable[[Any], list[Any]]] = {
    "complex": lambda value: [value.real, value.imag],
    "range": lambda value: [value.start, value.stop, value.step],
    "slice": lambda value: [value.start, value.stop, value.step],
    "Decimal": lambda value: [str(value)],
    "Fraction": lambda value: [value.numerator, value.denominator],
    "date": lambda value: [value.year, value.month, value.day],
    "time": lambda value: [value.hour, value.minute, value.second, value.microsecond],
    "datetime": lambda value: [
        *(value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
    ],
    "deque": lambda value: [list(value)],
    "timedelta": lambda value: [value.days, value.seconds, value.microseconds],
}
"""Classes → the arguments that make an equal one."""
_REBUILDERS: dict[str, Callable[..., Any]] = {
    "complex": complex,
    "range": range,
    "slice": slice,
    "Decimal": decimal.Decimal,
    "Fraction": fractions.Fraction,
    "date": dt.date,
    "time": dt.time,
    "datetime": dt.datetime,
    "deque": collections.deque,
    "timedelta": dt.timedelta,
}


class GoneError(Exception):
    """The other side ended, or says what is no message."""


class Line:
    """One end of the connection between the code and its tests."""

    def __init__(self, descriptor: int, may: Policy) -> None:
        """Speak over a connected socket; `may` judges what the other side asks for."""
        self.socket = socket.socket(fileno=descriptor)
        self.may = may
        self.things: dict[int, Any] = {}
        """What the other side holds a `Remote` to, by number."""
        self._numbers: dict[int, int] = {}
        self._mirrors: dict[int, type[BaseException]] = {}

    def ask(self, operation: str, on: Remote, *arguments: Any, **named: Any) -> Any:
        """Have the other side do something to a thing of its own, and return what came of it.

        Raises:
            GoneError: it ended.
            Exception: what was raised there.
        """
        self.send(
            {
                "do": operation,
                "on": number(on),
                "args": [self.encode(value) for value in arguments],
                "named": {name: self.encode(value) for name, value in named.items()},
            }
        )
        answer = self.wait("is", "raised")
        if "raised" in answer:
            raise self.decode(answer["raised"])
        for index, value in answer.get("args", {}).items():
            _renew(arguments[int(index)], self.decode(value))
        if "same" in answer:
            return arguments[answer["same"]]
        return self.decode(answer["is"])

    def wait(self, *keys: str) -> dict[str, Any]:
        """Return the next message that has one of these keys; what is asked meanwhile is answered."""
        while True:
            message = self.receive()
            if any(key in message for key in keys):
                return message
            self.send(self._answer(message))

    def serve(self) -> None:
        """Answer until the other side ends."""
        while True:
            self.wait("over")

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message."""
        content = json.dumps(message).encode()
        try:
            self.socket.sendall(struct.pack("!I", len(content)) + content)
        except OSError as error:
            raise GoneError("the other side ended") from error

    def receive(self) -> dict[str, Any]:
        """Return the next message."""
        (length,) = struct.unpack("!I", self._bytes(4))
        if length > _LONGEST:
            raise GoneError("a message is too long")
        try:
            message = json.loads(self._bytes(length))
        except (ValueError, RecursionError) as error:
            raise GoneError("what came is no message") from error
        if not isinstance(message, dict):
            raise GoneError("what came is no message")
        return message

    def _bytes(self, length: int) -> bytes:
        found = bytearray()
        while len(found) < length:
            try:
                part = self.socket.recv(min(length - len(found), 1 << 16))
            except OSError as error:
                raise GoneError("the other side ended") from error
            if not part:
                raise GoneError("the other side ended")
            found += part
        return bytes(found)

    def _answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Do what the other side asks."""
        try:
            operation, thing = message["do"], self.things[message["on"]]
            arguments = [self.decode(value) for value in message["args"]]
            named = {name: self.decode(value) for name, value in message["named"].items()}
            attribute = arguments[0] if operation in {"get", "set", "del"} else ""
            self._demand(operation, thing, attribute)
            value = do(operation, thing, arguments, named)
            changed = {index: self.encode(one) for index, one in enumerate(arguments) if _is_mutable(one)}
            same = next((index for index, one in enumerate(arguments) if one is value and _is_mutable(one)), None)
            extra = {} if same is None else {"same": same}
            return {"is": None if extra else self.encode(value), "args": changed, **extra}
        except GoneError:
            raise
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is raised on the other side)
            return {"raised": self.encode(error)}

    def _demand(self, operation: str, thing: Any, attribute: str) -> None:
        if not self.may(operation, thing, attribute):
            raise PermissionError(f"the code may not {operation} {attribute}".rstrip())

    def encode(self, value: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 (one for each kind of value)
        """Return a value as JSON; the inverse, at the other end, is `decode`."""
        if value is None or type(value) in (bool, float, str):
            return value
        match value:
            case bool() | str():
                return str(value)
            case int():
                return int(value) if -(2**63) < value < 2**63 else ["i", hex(value)]
            case float():
                return float(value)
            case bytes():
                return ["b", value.hex()]
            case bytearray():
                return ["ba", value.hex()]
            case list():
                return ["l", [self.encode(one) for one in value]]
            case tuple():
                names = getattr(type(value), "_fields", None)
                items = [self.encode(one) for one in value]
                return ["t", items] if names is None else ["n", type(value).__name__, list(names), items]
            case dict():
                pairs = [[self.encode(key), self.encode(one)] for key, one in value.items()]
                return ["d", pairs] if not isinstance(value, collections.Counter) else ["dc", pairs]
            case set() | frozenset():
                return ["s" if isinstance(value, set) else "f", [self.encode(one) for one in value]]
            case BaseException():
                return ["e", self._kind(type(value)), [self._plain(one) for one in value.args]]
            case Remote():
                return ["yours", number(value)]
        name, timed = type(value).__name__, getattr(value, "tzinfo", None) is not None
        if name in _REBUILT and type(value).__module__ in _BY_REFERENCE and not timed:
            return ["x", name, [self.encode(one) for one in _REBUILT[name](value)]]
        if isinstance(value, type) and issubclass(value, BaseException):
            return ["E", self._kind(value)]
        if isinstance(value, types.ModuleType):
            return ["m", value.__name__]
        return self._named(value) or self.keep(value)

    def _plain(self, value: Any) -> Any:
        """Return an exception's argument as JSON: what is no plain value goes as its description."""
        try:
            coded = self.encode(value)
        except (TypeError, RecursionError):
            return "…"
        return coded

    def _named(self, value: Any) -> Any:
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if module in _BY_REFERENCE and isinstance(name, str) and getattr(sys.modules.get(module), name, None) is value:
            return ["r", module, name]
        return None

    def keep(self, value: Any) -> list[Any]:
        """Return as JSON what stands for a thing that stays here.

        Raises:
            TypeError: the other side may not have it.
        """
        if not self.may("hold", value, ""):
            raise TypeError(f"{type(value).__name__} cannot be handed from the tests to the code")
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self.things)
            self.things[len(self.things)] = value
        return ["mine", self._numbers[id(value)], isinstance(value, types.CoroutineType)]

    def _kind(self, kind: type[BaseException]) -> list[Any]:
        """Return an exception class: by its name in a library, else by number, name and what it derives from."""
        if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind and _in_library(kind.__module__):
            return [kind.__module__, kind.__qualname__]
        number = id(kind)
        return [number, kind.__name__, self._kind(next(one for one in kind.__mro__[1:] if issubclass(one, Exception)
                                                       or one is BaseException))]  # fmt: skip

    def decode(self, coded: Any) -> Any:
        """Return what a value was.

        Raises:
            GoneError: it is none.
        """
        if not isinstance(coded, list):
            return coded
        try:
            return self._decoded(*coded)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, ImportError) as error:
            raise GoneError("what came is no value") from error

    def _decoded(self, tag: str, *parts: Any) -> Any:  # noqa: C901, PLR0911, PLR0912 (one for each kind of value)
        match tag:
            case "i":
                return int(parts[0], 16)
            case "b":
                return bytes.fromhex(parts[0])
            case "ba":
                return bytearray.fromhex(parts[0])
            case "l" | "t" | "s" | "f":
                holder: Any = {"l": list, "t": tuple, "s": set, "f": frozenset}[tag]
                return holder(self.decode(one) for one in parts[0])
            case "n":
                kind = collections.namedtuple(parts[0], parts[1])  # type: ignore[misc]  # noqa: PYI024 (fields that come)
                return kind(*(self.decode(one) for one in parts[2]))
            case "d" | "dc":
                pairs = {self.decode(key): self.decode(one) for key, one in parts[0]}
                return pairs if tag == "d" else collections.Counter(pairs)
            case "x":
                return _REBUILDERS[parts[0]](*(self.decode(one) for one in parts[1]))
            case "e":
                raised, arguments = self._mirror(parts[0]), tuple(self.decode(one) for one in parts[1])
                error = raised.__new__(raised, *arguments)
                error.args = arguments
                return error
            case "E":
                return self._mirror(parts[0])
            case "r":
                return _referred(parts[0], parts[1])
            case "m":
                return importlib.import_module(parts[0]) if _in_library(parts[0]) else None
            case "yours":
                return self.things[parts[0]]
            case "mine":
                remote = Remote(self, parts[0])
                return awaiting(remote) if parts[1] else remote
        raise ValueError(tag)

    def _mirror(self, kind: list[Any]) -> type[BaseException]:
        """Return the exception class that the other side means, made here where it is the other side's own."""
        if isinstance(kind[0], str):
            found = getattr(importlib.import_module(kind[0]), kind[1]) if _in_library(kind[0]) else Exception
            if not (isinstance(found, type) and issubclass(found, BaseException)):
                raise TypeError(kind)
            return found
        if kind[0] not in self._mirrors:
            self._mirrors[kind[0]] = type(str(kind[1]), (self._mirror(kind[2]),), {})
        return self._mirrors[kind[0]]


def _in_library(module: str) -> bool:
    return module.partition(".")[0] in sys.stdlib_module_names - {"unittest"}


def _referred(module: str, name: str) -> Any:
    found = (
        getattr(sys.modules.get(module) or importlib.import_module(module), name) if module in _BY_REFERENCE else None
    )
    if not isinstance(found, type | types.FunctionType | types.BuiltinFunctionType):
        raise TypeError(name)
    return found


def _is_mutable(value: Any) -> bool:
    """Return whether a value holds a container that a call can have changed."""
    if isinstance(value, _MUTABLE):
        return True
    return isinstance(value, tuple) and any(_is_mutable(one) for one in value)


def _renew(mine: Any, theirs: Any) -> Any:
    """Return `theirs`, as far as it goes in the containers of `mine`."""
    if type(mine) is not type(theirs):
        return theirs
    match mine:
        case list():
            mine[:] = [_renew(*pair) for pair in zip(mine, theirs, strict=False)] + theirs[len(mine) :]
        case dict():
            merged = {key: _renew(mine[key], one) if key in mine else one for key, one in theirs.items()}
            mine.clear()
            mine.update(merged)
        case set():
            mine.clear()
            mine.update(theirs)
        case bytearray():
            mine[:] = theirs
        case tuple():
            return (
                tuple(_renew(*pair) for pair in zip(mine, theirs, strict=True)) if len(mine) == len(theirs) else theirs
            )
        case _:
            return theirs
    return mine
