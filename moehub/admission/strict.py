"""JSON that a stranger wrote, read strictly: no key twice, no NaN, nothing nested without end."""

import json
from dataclasses import dataclass
from typing import NoReturn

from moehub.errors import ExpertError

_DEEPEST = 32
"""An expert's files nest four levels deep."""


class StrictJsonError(ExpertError):
    """Bytes that are no JSON, or JSON that two readers could read differently; its text says why."""


@dataclass(frozen=True)
class Document:
    """What the bytes hold."""

    value: object
    duplicates: tuple[str, ...]
    """Keys that stand twice in one object, anywhere; `value` holds the last."""


def parse(content: bytes) -> Document:
    """Return what `content` holds.

    Raises:
        StrictJsonError: it is no UTF-8, no JSON, holds NaN or Infinity, or nests too deep.
    """
    duplicates: list[str] = []

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        found: dict[str, object] = {}
        for key, value in pairs:
            if key in found:
                duplicates.append(key)
            found[key] = value
        return found

    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=unique, parse_constant=_refuse)
    except RecursionError as error:
        raise StrictJsonError("it nests too deep") from error
    except ValueError as error:
        raise StrictJsonError(str(error)) from error
    if _depth(value) > _DEEPEST:
        raise StrictJsonError("it nests too deep")
    return Document(value, tuple(duplicates))


def quoted(value: object) -> str:
    """Return a stranger's value as it may be shown: escaped, and cut where it is long."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:76]}…"


def _refuse(constant: str) -> NoReturn:
    raise StrictJsonError(f"it holds {constant}, which is no JSON")


def _depth(value: object) -> int:
    """Return how deep the value nests, without recursion."""
    deepest, level = 0, [value]
    while level and deepest <= _DEEPEST:
        deepest += 1
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [each for one in inner for each in (one.values() if isinstance(one, dict) else one)]
    return deepest
