"""A thing that lives in the other process, and the operations that can be asked of it."""

import numbers
import operator
from collections.abc import Callable
from typing import Any, Protocol


class Connection(Protocol):
    """What a remote thing is asked over."""

    def ask(self, operation: str, on: "Remote", *arguments: Any, **named: Any) -> Any:
        """Have the other side do something to a thing of its own, and return what came of it."""
        ...


class Remote:
    """Something that lives in the other process."""

    __slots__ = ("_moehub_line", "_moehub_thing", "_moehub_told")

    def __init__(self, line: "Connection", thing: int) -> None:
        object.__setattr__(self, "_moehub_line", line)
        object.__setattr__(self, "_moehub_thing", thing)
        object.__setattr__(self, "_moehub_told", False)

    def __getattr__(self, name: str) -> Any:
        return ask(self, "get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        ask(self, "set", name, value)

    def __delattr__(self, name: str) -> None:
        ask(self, "del", name)

    def __call__(self, *arguments: Any, **named: Any) -> Any:  # noqa: D102 (its docstring would be looked up here)
        return ask(self, "call", *arguments, **named)

    def __eq__(self, other: object) -> Any:
        return ask(self, "eq", other) if isinstance(other, Remote) else False

    def __ne__(self, other: object) -> Any:
        return not self == other

    def __hash__(self) -> int:
        return int(ask(self, "hash"))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        """Leave the other side's context, which may swallow an error, but no assertion of the tests."""
        asserted = isinstance(error, AssertionError)
        return bool(ask(self, "exit", None if asserted else error)) and not asserted

    def __lt__(self, other: object) -> Any:
        return ask(self, "lt", other) if isinstance(other, Remote) else NotImplemented

    def __le__(self, other: object) -> Any:
        return ask(self, "le", other) if isinstance(other, Remote) else NotImplemented

    def __gt__(self, other: object) -> Any:
        return ask(self, "gt", other) if isinstance(other, Remote) else NotImplemented

    def __ge__(self, other: object) -> Any:
        return ask(self, "ge", other) if isinstance(other, Remote) else NotImplemented


def _enter(thing: Any) -> Any:
    return type(thing).__enter__(thing)


def _leave(thing: Any, error: BaseException | None) -> bool:
    return bool(type(thing).__exit__(thing, None if error is None else type(error), error, None))


_PASSED_ON: dict[str, Callable[..., Any]] = {
    "len": len, "iter": iter, "next": next, "bool": bool, "str": str, "repr": repr, "hash": hash, "int": int,
    "float": float, "index": operator.index, "abs": abs, "neg": operator.neg, "pos": operator.pos,
    "invert": operator.invert, "round": round, "reversed": reversed, "contains": operator.contains,
    "getitem": operator.getitem, "setitem": operator.setitem, "delitem": operator.delitem,
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "truediv": operator.truediv,
    "floordiv": operator.floordiv, "mod": operator.mod, "pow": operator.pow, "matmul": operator.matmul,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor, "enter": _enter,
    "instancecheck": lambda kind, thing: isinstance(thing, kind),
    "subclasscheck": lambda kind, thing: issubclass(thing, kind),
}  # fmt: skip
"""Operators that a `Remote` passes on, each under its special method's name."""
_JUDGED: dict[str, Callable[..., Any]] = {
    "exit": _leave, "eq": operator.eq, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
}  # fmt: skip
_RETURNED = {"len": int, "bool": bool, "str": str, "repr": str, "hash": int, "int": int, "float": float, "index": int}


def _awaited(thing: Any) -> Any:
    import asyncio

    return asyncio.run(thing)


_BY_NAME: dict[str, Callable[..., Any]] = {"get": getattr, "set": setattr, "del": delattr, "await": _awaited}


_ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
_MEASURED = ("abs", "neg", "pos", "invert", "round", "len", "bool", "int", "float", "index")
"""Operators that make a number of one thing."""


def _passed_on(name: str) -> Callable[..., Any]:
    def method(self: Remote, *arguments: Any) -> Any:
        value = ask(self, name, *arguments)
        if name in _MEASURED:
            value = _believed(value, told=_is_told(self))
        return value if name not in _RETURNED else _RETURNED[name](value)

    return method


def _computed(name: str) -> Callable[..., Any]:
    def method(self: Remote, other: Any) -> Any:
        told = _is_told(self) or not isinstance(other, Remote) or _is_told(other)
        return _believed(ask(self, name, other), told=told)

    return method


def _is_told(thing: Remote) -> bool:
    return bool(thing._moehub_told)  # noqa: SLF001 (no property, because all other names are the other side's)


def _believed(value: Any, *, told: bool) -> Any:
    """Return what was computed by the other side's class, unless it is a number and it was told one of this side's.

    In `abs(f(x) - 0.5) < 1e-6` it would be the code that says how far it is off.

    Raises:
        TypeError: it is.
    """
    if told and isinstance(value, numbers.Number):
        raise TypeError("an object of the code's own class computes how far it is from a value of the tests")
    if told and isinstance(value, Remote):
        object.__setattr__(value, "_moehub_told", True)
    return value


for _name in _PASSED_ON:
    setattr(Remote, f"__{_name}__", _passed_on(_name))
for _name in _ARITHMETIC:
    setattr(Remote, f"__{_name}__", _computed(_name))
    setattr(Remote, f"__r{_name}__", _computed(f"r{_name}"))


def ask(thing: Remote, operation: str, *arguments: Any, **named: Any) -> Any:
    """Have something done to a remote thing where it lives."""
    line: Connection = thing._moehub_line  # noqa: SLF001 (no method, because all other names are the other side's)
    return line.ask(operation, thing, *arguments, **named)


def number(thing: Remote) -> int:
    """Return by which number the other side knows a thing."""
    return int(thing._moehub_thing)  # noqa: SLF001 (the same)


async def awaiting(thing: Remote) -> Any:
    """Await in the other process what is awaited here."""
    return ask(thing, "await")


def do(operation: str, thing: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
    """Do to a thing of this side what the other asks; `radd` and the like are `add` the other way round."""
    if operation == "call":
        return thing(*arguments, **named)
    known = _BY_NAME.get(operation) or _PASSED_ON.get(operation) or _JUDGED.get(operation)
    if known is not None:
        return known(thing, *arguments)
    return _PASSED_ON[operation[1:]](arguments[0], thing)
