"""`moehub federate invite`: what a contributor needs to find the server."""

from pathlib import Path

import click

from moehub.cli.federate.state import state


@click.command("invite")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@state
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write it.  [default: standard output]",
)
def command(*, file: Path | None, state: Path, output: Path | None) -> None:
    """Write an invitation: the server's address, how to know it, and the base that everybody trains on.

    Nothing in it is secret. The base is that of FILE, the settings of a federation, or of the run in progress;
    without either, a node takes the base that a run asks for.

    \b
    Example:
      moehub federate invite federation.yaml -o invitation.json
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.deploy import invitation
    from moehub.federation.deploy.inviting import invite

    made = invite(state, file)
    if output is None:
        click.echo(invitation.to_json(made), nl=False)
    else:
        invitation.write(output, made)
        click.echo(output)
