"""`moehub hub token list`: who may do what."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import console, files
from moehub.cli import options
from moehub.cli.hub.root import root

if TYPE_CHECKING:
    from moehub.hubserver.store.tokens import Token


@click.command("list")
@root
@options.as_json
def command(root: Path, as_json: bool) -> None:
    """List the tokens of a hub: whose they are, what they open, and when they were last used.

    \b
    Example:
      moehub hub token list
      moehub hub token list --root /srv/hub --json
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.hubserver.store.store import open_store

    tokens = open_store(root).tokens.list()
    if as_json:
        click.echo(files.to_json([dataclasses.asdict(token) for token in tokens]), nl=False)
    elif tokens:
        _show(tokens)
    else:
        console.console.print(
            f"{root} has no tokens: `moehub hub token create NAME` makes one", markup=False, soft_wrap=True
        )


def _show(tokens: "Sequence[Token]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("id", "name", "may", "namespaces", "grants", "expires", "used", box=None, pad_edge=False)
    for token in tokens:
        expires = "expired" if token.expired else _day(token.expires)
        may = "write" if token.writes else "read"
        cells = [token.id, token.name, may, ", ".join(token.namespaces), ", ".join(token.grants) or "–", expires]
        table.add_row(*map(Text, [*cells, _day(token.used)]))
    console.results.print(table)


def _day(time: str | None) -> str:
    return time[:10] if time else "never"
