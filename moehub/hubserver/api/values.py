"""What a body in JSON holds, looked at strictly: a stranger wrote it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moehub.hubserver.refusals import RefusedError

_LARGEST = 1 << 60


@dataclass(frozen=True)
class Values:
    """A JSON object."""

    values: Mapping[str, Any]

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text; `default` where there is none.

        Raises:
            RefusedError: it is something else, or missing without a default.
        """
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if not isinstance(value, str) or not _encodes(value):
            raise RefusedError(400, f"{name} is {_shown(value)}, expected a text")
        return value

    def size(self, name: str) -> int:
        """Return a number of bytes.

        Raises:
            RefusedError: it is something else.
        """
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
            raise RefusedError(400, f"{name} is {_shown(value)}, expected a number of bytes")
        return value

    def objects(self, name: str, most: int) -> list["Values"]:
        """Return a list of at most `most` objects.

        Raises:
            RefusedError: it is something else.
        """
        value = self.values.get(name)
        if not isinstance(value, list) or len(value) > most or not all(isinstance(each, dict) for each in value):
            raise RefusedError(400, f"{name} is {_shown(value)}, expected a list of at most {most} objects")
        return [Values(each) for each in value]

    def object(self, name: str) -> "Values":
        """Return an object.

        Raises:
            RefusedError: it is something else.
        """
        value = self.values.get(name)
        if not isinstance(value, dict):
            raise RefusedError(400, f"{name} is {_shown(value)}, expected an object")
        return Values(value)

    def one_of(self, name: str, *choices: Any) -> Any:
        """Return a value that is one of some; None where there is none.

        Raises:
            RefusedError: it is something else.
        """
        value = self.values.get(name)
        if value is not None and not any(
            value is each or (value == each and isinstance(value, str)) for each in choices
        ):
            raise RefusedError(400, f"{name} is {_shown(value)}, expected one of {', '.join(map(json.dumps, choices))}")
        return value


def read(body: bytes | bytearray | memoryview) -> Values:
    """Return the object that is in a body.

    Raises:
        RefusedError: it is no JSON, or no object.
    """
    try:
        values = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is no JSON ({error}): expected an object") from error
    if not isinstance(values, dict):
        raise RefusedError(400, f"the body is {_shown(values)}, expected an object in JSON")
    return Values(values)


def _shown(value: Any) -> str:
    return "missing" if value is None else ascii(value)[:60]


def _encodes(value: str) -> bool:
    """Return whether a text can be stored: JSON can write halves of characters."""
    return not any("\ud800" <= character <= "\udfff" for character in value)
