"""Options that several commands share."""

import click

hub = click.option(
    "--hub",
    envvar="MOEHUB_HUB",
    show_envvar=True,
    metavar="URL|FOLDER",
    help="A hub's URL, or a folder that is used as a hub.  [default: huggingface.co, or HF_ENDPOINT]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
