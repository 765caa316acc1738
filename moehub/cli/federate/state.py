"""The option that names a server's folder."""

from pathlib import Path

import click

state = click.option(
    "--state",
    envvar="MOEHUB_FEDERATION_STATE",
    show_envvar=True,
    default=Path("federation-server"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The server's folder.",
)
