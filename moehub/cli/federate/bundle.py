"""`moehub federate bundle`: the folder that `flwr run` takes."""

from pathlib import Path

import click


@click.command("bundle")
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder to make.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, as rounds=5 or train.rank=8; an unknown KEY lists all. Repeat it.",
)
def command(*, file: Path, output: Path, assignments: tuple[str, ...]) -> None:
    """Make the Flower App of the federation in FILE: its settings, and no code.

    `flwr run` takes the folder. Whoever runs it runs the server and the nodes as their own moehub has them. FILE is
    the settings of `moehub federate up`; its nodes are left aside. The base is looked at, so that the server needs
    none.

    \b
    Example:
      moehub federate bundle federation.yaml --output app
      flwr run app my-superlink --stream
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub import base as bases
    from moehub import config
    from moehub.federation.deploy import bundle
    from moehub.federation.form import form_of
    from moehub.federation.settings import read_federation

    settings = read_federation(file, **config.assigned(assignments))
    click.echo(bundle.write(output, settings, form_of(bases.find(settings.base), settings.train)))
