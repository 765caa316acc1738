"""Sizes as people write them: 500G, 1.5T."""

import re

import click

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def read(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    """Return the bytes that a text means, in units of 1024; None where there is none.

    Raises:
        click.BadParameter: it is no size.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    size = int(float(found[1]) * (1 << _UNITS[found[2].upper()])) if found else 0
    if size <= 0:
        raise click.BadParameter(f"{text!r} is no size, expected a number of bytes above 0, as in 500G or 200M")
    return size
