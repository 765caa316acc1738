"""`moehub federate unregister`: shut a node out."""

from pathlib import Path

import click

from moehub.cli.federate.state import state
from moehub.console import console


@click.command("unregister")
@click.argument("name", metavar="NAME")
@state
def command(*, name: str, state: Path) -> None:
    """Shut the node that is registered as NAME out; its key opens nothing from now on.

    \b
    Example:
      moehub federate unregister "St Mary"
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.deploy import registration

    node = registration.unregister(state, name)
    console.print(f"{name} is shut out", markup=False, soft_wrap=True)
    click.echo(node)
