"""Options that several commands share."""

from pathlib import Path

import click

hub = click.option(
    "--hub",
    envvar="MOEHUB_HUB",
    show_envvar=True,
    metavar="URL|FOLDER",
    help="A hub's URL, or a folder that is used as a hub.  [default: huggingface.co, or HF_ENDPOINT]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
sign = click.option("--sign", is_flag=True, help="Sign every file with your key.")
key = click.option(
    "--key",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The private key to sign with.  [default: the one that `moehub keys create` made]",
)
