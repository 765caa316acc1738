"""`moehub hub token create`: let somebody in."""

import datetime as dt
from pathlib import Path

import click

from moehub.cli.hub import time
from moehub.cli.hub.root import root
from moehub.console import console


@click.command("create")
@click.argument("name", metavar="NAME")
@root
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NS",
    help="A namespace whose repos the token opens; repeat it for more.  [default: NAME]",
)
@click.option("--write", is_flag=True, help="Let it create and change repos of its namespaces, too.")
@click.option(
    "--expires",
    callback=time.read,
    metavar="TIME",
    help="Make it worthless after this time: 12h, 90d, 26w.  [default: never]",
)
@click.option(
    "--grant", "grants", multiple=True, metavar="ORG/NAME", help="A gated repo of others that it opens; repeatable."
)
def command(
    name: str,
    root: Path,
    namespaces: tuple[str, ...],
    write: bool,
    expires: dt.timedelta | None,
    grants: tuple[str, ...],
) -> None:
    """Make a token for NAME, and print it: this once, for the hub keeps its digest alone.

    NAME is the author of the commits that are made with it.

    \b
    Example:
      moehub hub token create ada --namespace acme --write --expires 90d
      moehub hub token create reader --grant acme/law
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.hubserver.store.store import open_store

    store = open_store(root, create=True)
    token, secret = store.tokens.create(name, namespaces or (name,), writes=write, lifetime=expires, grants=grants)
    until = f"until {token.expires}" if token.expires else "until it is revoked"
    what = "reads and writes" if token.writes else "reads"
    where = ", ".join(token.namespaces)
    console.print(
        f"the token {token.id} of {name} {what} {where} {until}; it is shown only now:", markup=False, soft_wrap=True
    )
    click.echo(secret)
