"""Changing inputs: bytes that happen to be JSON are changed as JSON too, which blind changes seldom leave whole."""

import json
import random
from collections.abc import Sequence
from typing import Any

_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 1e308, -0.0, 0.5, "", "a", "\0", "../x",
    "\ud800", "x" * 300, [], {}, [[]], [None], {"a": 1}, "F32", "null", ".", "/",
)  # fmt: skip
_RAW = ("NaN", "Infinity", "-Infinity", "1e999", "1" * 5000, "[" * 3000, '{"a":' * 3000)
"""What Python's parser takes, or may trip over, though no program writes it."""
_ONCE_MORE = 3
_MARK = "\ue000raw"


def mutated(data: bytes, chance: random.Random, words: Sequence[str], others: Sequence[bytes]) -> bytes:
    """Return bytes changed in a few places."""
    if chance.random() < 0.6:
        changed = _json_changed(data, chance, words)
        if changed is not None:
            return changed
    return _bytes_changed(data, chance, words, others)


def _json_changed(data: bytes, chance: random.Random, words: Sequence[str]) -> bytes | None:
    """Return data whose first JSON value was changed, or None where it holds none; what follows it stays."""
    start = data.find(b"{")
    if start < 0:
        return None
    try:
        text = data[start:].decode("utf-8", errors="surrogateescape")
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    for _ in range(chance.randint(1, _ONCE_MORE)):
        value = _changed(value, chance, words)
    try:
        made = json.dumps(value, ensure_ascii=chance.random() < 0.5)
    except (ValueError, RecursionError):
        return None
    while f'"{_MARK}"' in made:
        made = made.replace(f'"{_MARK}"', chance.choice(_RAW), 1)
    if chance.random() < 0.05 and made.startswith('{"'):
        made = '{"' + made[2:].partition('"')[0] + '": 1, ' + made[1:]  # the first key twice
    return data[:start] + (made + text[end:]).encode("utf-8", errors="surrogatepass")


def _changed(value: Any, chance: random.Random, words: Sequence[str]) -> Any:
    """Return a JSON value with one change somewhere in it."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.1:
        return _replaced(value, chance, words)
    kind = chance.randint(0, 5)
    if isinstance(value, list):
        at = chance.randrange(len(value))
        new = (
            [[], [value[at], value[at]], [value[at], None]][kind] if kind < 3 else [_changed(value[at], chance, words)]
        )
        return [*value[:at], *new, *value[at + 1 :]]
    key = chance.choice(list(value))
    if kind == 0:
        return {name: each for name, each in value.items() if name != key}
    if kind < 3:
        return {**value, _word(chance, words): value[key] if kind == 1 else chance.choice(_VALUES)}
    return {**value, key: _changed(value[key], chance, words)}


def _replaced(value: Any, chance: random.Random, words: Sequence[str]) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool) and chance.random() < 0.6:
        return chance.choice([value + 1, value - 1, -value, value * 2, value * 1000, 0.5 * min(abs(value), 1e300), "1"])
    if isinstance(value, str) and chance.random() < 0.4:
        at = chance.randint(0, len(value))
        return value[:at] + chance.choice(["/", "..", "\0", "é", "\U0001f600", "\\", "*", "(", "a+" * 20]) + value[at:]
    if chance.random() < 0.1:
        return _MARK
    return _word(chance, words) if chance.random() < 0.2 else chance.choice(_VALUES)


def _word(chance: random.Random, words: Sequence[str]) -> str:
    return chance.choice([*words, "a"]).strip('":{} ')


def _bytes_changed(data: bytes, chance: random.Random, words: Sequence[str], others: Sequence[bytes]) -> bytes:
    made = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        at = chance.randint(0, len(made))
        match chance.randint(0, 5):
            case 0:
                made[at : at + chance.randint(1, 8)] = b""
            case 1:
                made[at:at] = chance.randbytes(chance.randint(1, 4))
            case 2 if words:
                made[at:at] = chance.choice(words).encode("latin-1")
            case 3 if others:
                other = chance.choice(others)
                start = chance.randint(0, len(other))
                made[at:at] = other[start : start + chance.randint(1, 64)]
            case 4:
                made[at:at] = str(chance.choice([0, -1, 1 << 31, 1 << 63, 1 << 64, 10**400])).encode()
            case _ if at < len(made):
                made[at] = chance.randrange(256)
    return bytes(made)
