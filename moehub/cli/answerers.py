"""Options of commands that ask models, here or behind an endpoint."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from moehub.cli import options

if TYPE_CHECKING:
    from moehub.answering.meter import Meter
    from moehub.judging.opening import Access

Command = Callable[..., Any]
_OPTIONS = (
    click.option("--base", help="Where the base of experts and MoEs is, if not where they say."),
    options.backend,
    click.option(
        "--api-key",
        "api_keys",
        multiple=True,
        metavar="HOST=VARIABLE",
        help="The environment variable that holds the key of a host, as api.example.org=MY_KEY. Repeat it. "
        "MOEHUB_API_KEYS names them for a whole shell.",
    ),
    click.option(
        "--concurrency",
        default=8,
        show_default=True,
        type=click.IntRange(min=1),
        help="Requests to an endpoint that are open at once.",
    ),
    click.option("--price-in", type=click.FloatRange(min=0), help="Price of a million tokens that are read."),
    click.option("--price-out", type=click.FloatRange(min=0), help="Price of a million tokens that are written."),
)
_VOTES = click.option(
    "--votes",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Answers to draw for a yes or no where an endpoint shows no probabilities; 0: that is an error.",
)


def _sampling(tokens: int, temperature: float, top_p: float) -> tuple[Callable[[Command], Command], ...]:
    """Return the options of how answers are written, with their defaults."""
    above = click.FloatRange(min=0, max=1, min_open=True)
    return (
        click.option("--max-new-tokens", default=tokens, show_default=True, type=click.IntRange(min=1)),
        click.option(
            "--temperature",
            default=temperature,
            show_default=True,
            type=click.FloatRange(min=0),
            help="0: most probable.",
        ),
        click.option("--top-p", default=top_p, show_default=True, type=above),
    )


_ANSWERS = _sampling(256, 0.0, 1.0)
_TEXT: tuple[Callable[[Command], Command], ...] = (
    *_sampling(512, 0.8, 0.95),
    click.option("--seed", default=0, show_default=True, type=int, help="Decides what is drawn."),
)


def asking(command: Command) -> Command:
    """Give a command the options of `access`."""
    return _with(command, _OPTIONS)


def judging(command: Command) -> Command:
    """Give a command the options of `access`, and how a judge is asked."""
    return asking(_VOTES(command))


def answering(command: Command) -> Command:
    """Give a command the options of how answers are written."""
    return _with(command, _ANSWERS)


def writing(command: Command) -> Command:
    """Give a command the options of how text is written that others will learn from: drawn, not the most probable."""
    return _with(command, _TEXT)


def _with(command: Command, given: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(given):
        command = option(command)
    return command


def access(
    *,
    base: str | None,
    backend: str,
    api_keys: tuple[str, ...],
    concurrency: int,
    votes: int = 0,
    price_in: float | None,
    price_out: float | None,
) -> "Access":
    """Return how models are opened, from the options of `asking` or `judging`.

    Raises:
        ConfigError: a key is no HOST=VARIABLE.
    """
    from moehub.answering.endpoint import Manners
    from moehub.answering.meter import Price
    from moehub.judging import opening

    priced = price_in is not None or price_out is not None
    return opening.Access(
        base=base,
        backend=backend,
        keys={**opening.named_keys(), **dict(opening.key(one) for one in api_keys)},
        manners=Manners(concurrency=concurrency, votes=votes),
        price=Price(price_in or 0.0, price_out or 0.0) if priced else None,
    )


def cost(who: str, meter: "Meter") -> str:
    """Return what asking a model cost, as a line."""
    note = f"; {meter.undecided:,} questions were answered with neither yes nor no" if meter.undecided else ""
    return f"{who}: {meter}{note}"
