"""`moehub demo`: the whole road on this machine's own text."""

import dataclasses
from pathlib import Path

import click

from moehub.cli import options
from moehub.console import console


@click.command(name="demo")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-output"),
    show_default=True,
    help="Where everything is left; an earlier demo there is replaced.",
)
@click.option("--base", metavar="MODEL", help="A causal LM in place of the small one: a folder, or org/name on a hub.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Starts every training.")
@click.option("--federated", is_flag=True, help="Several nodes train each expert together, through Flower.")
@options.as_json
def command(output: Path, base: str | None, seed: int, federated: bool, as_json: bool) -> None:
    """Run the whole road on this machine's own text: no download, no GPU, a few minutes.

    Four contributors each train an expert on a small base and publish it to a hub on this machine. The experts
    are fetched, merged and measured; a fifth joins and leaves. The tables, a page and every model stay in the output
    folder.

    \b
    Examples:
      moehub demo
      moehub demo --federated
      moehub demo --base HuggingFaceTB/SmolLM2-135M --output smollm
    """  # noqa: D301
    from moehub.demo import road, terminal
    from moehub.demo.config import DemoConfig

    shown = road.walk(output, dataclasses.replace(DemoConfig(), seed=seed), base=base, federated=federated)
    if as_json:
        click.echo(shown.report.to_json(), nl=False)
    else:
        terminal.show(shown, console)
