"""Comparisons that somebody made, read from files: records with `a`, `b` and `winner`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from moehub.errors import DataError, listed
from moehub.experts import records
from moehub.experts.records import Record
from moehub.judging.asking import Winner
from moehub.judging.rating import Battle

_MOST_FAULTS = 10


def read(sources: Sequence[Path]) -> list[Battle]:
    """Return the comparisons in files, in order.

    `a` and `b` name two models; `winner` is `a`, `b`, `tie`, or the name of one of the two.

    Raises:
        DataError: a file cannot be read, or has records that are no comparisons; the first ten are named.
    """
    battles, faults = [], []
    for record in (one for file in records.read(sources) for one in file):
        try:
            battles.append(_battle(record))
        except DataError as error:
            faults.append(f"{record.origin} {error}")
    if faults:
        more = [f"and {len(faults) - _MOST_FAULTS} more"] if len(faults) > _MOST_FAULTS else []
        summary = f"{len(faults)} record(s) are no comparisons; correct or remove them:"
        raise DataError(listed(summary, [*faults[:_MOST_FAULTS], *more]))
    return battles


def _battle(record: Record) -> Battle:
    if isinstance(record.value, DataError):
        raise record.value
    values: Any = record.value
    if not isinstance(values, dict) or not all(isinstance(values.get(name), str) for name in ("a", "b", "winner")):
        raise DataError("has no a, b and winner that are texts")
    a, b, winner = values["a"], values["b"], values["winner"]
    if a == b:
        raise DataError(f"compares {a!r} with itself")
    verdict = {a: "a", b: "b"}.get(winner, winner)
    if verdict not in {"a", "b", "tie"}:
        raise DataError(f"has winner = {winner[:40]!r}, expected a, b, tie, {a!r} or {b!r}")
    return Battle(a, b, cast("Winner", verdict))
