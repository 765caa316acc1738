"""Strict settings: YAML and `key=value` pairs become a frozen dataclass, or every fault is reported at once."""

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from moehub.errors import ConfigError, listed

T = TypeVar("T")
YAML_FAULTS = (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)
"""What PyYAML raises about text that is no YAML, and about dates, numbers and nesting that Python cannot hold."""


def load(kind: type[T], file: Path | None = None, assignments: Sequence[str] = ()) -> T:
    """Return settings of the dataclass `kind` from its defaults, a YAML file and `key=value` pairs, later ones first.

    Raises:
        ConfigError: the file cannot be read, or any key is unknown or of the wrong type; all faults are listed.
    """
    values = read_yaml(file) if file is not None else {}
    values |= assigned(assignments)
    return from_mapping(kind, values, source=str(file) if file is not None else "--set")


def from_mapping(kind: type[T], values: Mapping[str, Any], *, source: str) -> T:
    """Return the dataclass `kind` filled from `values`.

    Raises:
        ConfigError: unknown keys or wrong types, all listed; `source` says where they stood.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{source} holds {values!r:.40}, expected `key: value`")
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    hints = typing.get_type_hints(kind)
    faults = [
        f"unknown key {name!r}; known keys are {', '.join(sorted(fields))}" for name in values if name not in fields
    ]
    faults += [
        f"{name} = {values[name]!r}, expected {_describe(hints[name])}"
        for name in fields
        if name in values and not _fits(values[name], hints[name])
    ]
    faults += [
        f"missing key {name!r}"
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if faults:
        raise ConfigError(listed(f"{source} does not fit {kind.__name__}:", faults))
    return kind(**{name: _coerce(value, hints[name]) for name, value in values.items()})


def assigned(assignments: Sequence[str]) -> dict[str, Any]:
    """Return what `key=value` pairs assign; values are read as YAML.

    Raises:
        ConfigError: a pair has no key, no equals sign, or a value that is no YAML.
    """
    return dict(_parse(assignment) for assignment in assignments)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, empty for an empty file.

    Raises:
        ConfigError: the file cannot be read, or holds no mapping.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, *YAML_FAULTS) as error:
        raise ConfigError(f"cannot read the settings in {file}: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{file} holds a {type(values).__name__}, expected `key: value` lines")
    # YAML reads the bare key `null` as nothing.
    return {"null" if key is None else key: value for key, value in values.items()}


def _parse(assignment: str) -> tuple[str, Any]:
    key, equals, value = assignment.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {assignment!r} is no setting, expected key=value, as in --set rank=16")
    try:
        return key.strip(), yaml.safe_load(value)
    except YAML_FAULTS as error:
        raise ConfigError(f"--set {assignment!r}: the value is no YAML scalar or list: {error}") from error


def _fits(value: Any, hint: Any) -> bool:  # noqa: PLR0911 (one for each kind of annotation)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, argument) for argument in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin in (tuple, list):
        return isinstance(value, (list, tuple)) and all(_fits(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if hint is Any:
        return True
    if hint is float:
        return not isinstance(value, bool) and isinstance(value, (int, float, str)) and _is_float(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is Path:
        return isinstance(value, (str, Path))
    return isinstance(value, type(None) if hint is None else hint)


def _coerce(value: Any, hint: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        matching = next(argument for argument in arguments if _fits(value, argument))
        return _coerce(value, matching)
    if origin in (tuple, list):
        return origin(_coerce(item, arguments[0]) for item in value)
    if hint is float:
        return float(value)
    return Path(value) if hint is Path else value


def _is_float(value: float | str) -> bool:
    # YAML reads 1e-4 as text: it wants 1.0e-4. People write 1e-4.
    try:
        float(value)
    except (ValueError, OverflowError):
        return False
    return True


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin in (tuple, list):
        return f"a list of {_describe(arguments[0])}"
    if origin is dict:
        return "a mapping"
    names = {
        int: "an integer",
        float: "a number",
        str: "a text",
        bool: "true or false",
        type(None): "nothing",
    }
    return names.get(hint, getattr(hint, "__name__", str(hint)))
