"""`moehub federate logs`: what the server's processes wrote."""

from pathlib import Path

import click

from moehub.cli.federate.state import state


@click.command("logs")
@click.argument("name", metavar="[NAME]", required=False)
@state
@click.option("--lines", type=click.IntRange(min=1), default=40, show_default=True, help="The last lines.")
@click.option("--follow", is_flag=True, help="Go on as more is written, until Ctrl-C.")
def command(*, name: str | None, state: Path, lines: int, follow: bool) -> None:
    """Show the last lines of the run's log, or of the process NAME: superlink, superexec, gateway.

    \b
    Example:
      moehub federate logs --follow
      moehub federate logs gateway
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.deploy import logs

    try:
        for line in logs.read(state, name, lines=lines, follow=follow):
            click.echo(line)
    except KeyboardInterrupt:
        return
