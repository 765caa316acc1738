"""`moehub federate status`: how a federation stands."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import files
from moehub.cli import options
from moehub.cli.federate.state import state

if TYPE_CHECKING:
    from moehub.federation.deploy.status import Run, Status


@click.command("status")
@state
@options.as_json
def command(*, state: Path, as_json: bool) -> None:
    """Show the nodes, the run, and its rounds so far.

    It works on the folder of a server, and on the output of `moehub federate up`.

    \b
    Example:
      moehub federate status
      moehub federate status --state federation --json
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.deploy import status

    found = status.read(state.absolute())
    if as_json:
        click.echo(files.to_json(dataclasses.asdict(found)), nl=False)
    else:
        _show(found)


def _show(status: "Status") -> None:
    from rich.table import Table
    from rich.text import Text

    from moehub.console import results

    if status.address:
        running = "serves" if status.running else "does not run; nodes would come to"
        results.print(Text(f"the server {running} {status.address}"))
        table = Table("node", "domain", "state", "id", box=None, pad_edge=False)
        for node in status.nodes:
            table.add_row(Text(node.name or "–"), node.domain or "–", node.state, str(node.id))
        results.print(table if status.nodes else Text("no node is registered"))
    if status.run is None:
        results.print(Text("no run was handed over: begin one with `moehub federate run`"))
    else:
        _show_run(status.run)


def _show_run(run: "Run") -> None:
    from rich.filesize import decimal
    from rich.table import Table
    from rich.text import Text

    from moehub.console import results

    what = f", {run.rounds} rounds of {run.aggregation} on {run.base}" if run.base else ""
    results.print(Text(f"the run in {run.output}{what}: {run.state}"), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("domain", "round", "nodes", "loss", "carried", "seconds"):
        table.add_column(heading, justify="left" if heading == "domain" else "right")
    for each in run.done:
        numbers = str(each.round), str(each.nodes), f"{each.loss:.4f}", decimal(each.bytes), f"{each.seconds:.0f}"
        table.add_row(Text(each.domain), *numbers)
    if run.done:
        results.print(table)
    for domain, stage in run.domains.items():
        results.print(Text(f"{domain}: {stage}"))
    for problem in run.problems:
        results.print(Text(problem), soft_wrap=True)
