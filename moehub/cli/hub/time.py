"""Times as a person types them: 12h, 90d, 26w."""

import datetime as dt
import re

import click

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def read(_context: click.Context, _parameter: click.Parameter, value: str | None) -> dt.timedelta | None:
    """Return the time that an option names; click's callback.

    Raises:
        click.BadParameter: it is none.
    """
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,4})([hdw])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time, expected hours, days or weeks, as in 12h, 90d or 26w")
    return dt.timedelta(**{_UNITS[found[2]]: int(found[1])})
