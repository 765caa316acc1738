"""Options that several commands share."""

from pathlib import Path

import click

from moehub.cli import size

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
backend = click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="How a MoE's sparse layers are computed; `moehub doctor` lists them. MOEHUB_BACKEND decides what auto is.",
)
resident = click.option(
    "--resident",
    callback=size.read,
    metavar="SIZE",
    help="Memory that a MoE's experts may take at a time, as in 2G: the rest stays on the disk.  [default: no limit]",
)
