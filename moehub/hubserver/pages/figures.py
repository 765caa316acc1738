"""Numbers, sizes and dates as people read them; a stranger's may be anything."""

import math

from moehub.card import Metrics

NONE = "–"
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")
_MOST = 10**15


def number(value: int) -> str:
    """Return a count with its thousands apart."""
    return f"{value:,}" if abs(value) < _MOST else "beyond counting"


def size(value: int) -> str:
    """Return a number of bytes in the unit that suits it."""
    amount, unit = float(value), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    if unit == 0:
        return f"{value} byte{'' if value == 1 else 's'}"
    return f"{amount:.{0 if amount >= 99.5 else 1}f} {_UNITS[unit]}"


def loss(value: float | None) -> str:
    """Return a loss in nats."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:.3f}" if abs(value) < 1000 else f"{value:.2e}"


def gain(base: float | None, own: float | None) -> float | None:
    """Return by how many per cent a loss lies below the base's; None where that says nothing."""
    if base is None or own is None or not (0 < base < _MOST and 0 <= own < _MOST):
        return None
    return max(100 * (base - own) / base, -999.0)


def gain_of(metrics: Metrics | None) -> float | None:
    """Return by how many per cent an expert's loss lies below its base's; None where nobody knows."""
    return gain(metrics.base_loss, metrics.expert_loss) if metrics else None


def percent(value: float | None) -> str:
    """Return per cent with one decimal."""
    return NONE if value is None else f"{value:.1f} %".replace("-", "−")


def day(time: str) -> str:
    """Return the day of a time as the database writes it."""
    return time[:10]


def minute(time: str) -> str:
    """Return day and minute of a time as the database writes it."""
    return f"{time[:10]} {time[11:16]} UTC"


def short(oid: str | None) -> str:
    """Return the beginning of a digest, enough to tell it from others."""
    return oid[:10] if oid else NONE


def clip(text: object, most: int = 120) -> str:
    """Return the beginning of a text that may be long, on one line."""
    flat = " ".join(str(text)[: 4 * most].split())
    return flat if len(flat) <= most else f"{flat[: most - 1]}…"
