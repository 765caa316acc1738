"""`moehub hub token revoke`: shut somebody out."""

from pathlib import Path

import click

from moehub.cli.hub.root import root
from moehub.console import console


@click.command("revoke")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@root
def command(ids: tuple[str, ...], root: Path) -> None:
    """Make tokens worthless at once; ID is what `moehub hub token list` shows.

    \b
    Example:
      moehub hub token revoke 1f3a9c04
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.hubserver.store.store import open_store

    tokens = open_store(root).tokens
    for each in ids:
        console.print(
            f"the token {each} of {tokens.revoke(each).name} opens nothing any more", markup=False, soft_wrap=True
        )
