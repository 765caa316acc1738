"""The option that names a hub's folder."""

from pathlib import Path

import click

root = click.option(
    "--root",
    envvar="MOEHUB_ROOT",
    show_envvar=True,
    default=Path("hub"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The hub's folder.",
)
