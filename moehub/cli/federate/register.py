"""`moehub federate register`: let a node in."""

from pathlib import Path

import click

from moehub.cli.federate.state import state
from moehub.console import console


@click.command("register")
@click.argument("key", metavar="KEY.pub", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="What the node is called here; never published.")
@click.option("--domain", required=True, help="The domain that it may train for.")
@state
def command(*, key: Path, name: str, domain: str, state: Path) -> None:
    """Let the node with this public key take part, and print its id.

    The contributor sends KEY.pub, which `moehub node` made; make sure that it is theirs. A key that is registered
    already gets the new name and domain. A run in progress takes the node in.

    \b
    Example:
      moehub federate register north.pub --name "St Mary" --domain law
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.deploy import registration

    node = registration.register(state, key, name=name, domain=domain)
    console.print(f"{name} may train for {domain}", markup=False, soft_wrap=True)
    click.echo(node)
