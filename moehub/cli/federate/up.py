"""`moehub federate up`: a whole federation on this machine."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import config, files
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.federation.deploy.launch import Outcome
    from moehub.federation.settings import Gathering


@click.command("up")
@click.option(
    "--nodes",
    "file",
    required=True,
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The federation: a YAML file of its settings and its nodes.",
)
@click.option(
    "--output",
    default=Path("federation"),
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for experts, checkpoints, journal and logs.",
)
@click.option("--rounds", type=click.IntRange(min=1), help="Rounds, instead of those in the file.")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of an interrupted federation.")
@click.option("--overwrite", is_flag=True, help="Begin anew, and replace the experts in the output.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, as steps=20 or train.rank=8; an unknown KEY lists all. Repeat it.",
)
@click.option("--dry-run", is_flag=True, help="Read everything and say what would be run; start nothing.")
@options.as_json
def command(
    *,
    file: Path,
    output: Path,
    rounds: int | None,
    resume: bool,
    overwrite: bool,
    assignments: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Run a whole federation on this machine: the server and every node in FILE, on loopback alone.

    The nodes of a domain train one expert together; the experts appear in OUTPUT/experts, as `moehub merge` takes
    them. Everything that was started has ended when the command does, however it ends. Paths in FILE are relative to
    it:

    \b
      base: org/base
      rounds: 3
      steps: 50
      nodes:
        - {domain: law, data: north.jsonl, name: St Mary, credit: true}
        - {domain: law, data: [south.jsonl, notes.txt]}
        - {domain: code, data: code.jsonl}

    \b
    Example:
      moehub federate up --nodes nodes.yaml --output federation
      moehub federate up --nodes nodes.yaml --output federation --rounds 6 --resume
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.federation.settings import read_gathering

    gathering = read_gathering(file, **{**config.assigned(assignments), "rounds": rounds})
    from moehub.federation.deploy import launch

    if dry_run:
        launch.check(output, resume=resume, overwrite=overwrite)
        _show_plan(gathering, output, as_json=as_json)
        return
    from moehub.console import console

    try:
        outcome = launch.up(gathering, output, resume=resume, overwrite=overwrite)
    except KeyboardInterrupt:
        console.print("stopped: everything has ended; the rounds so far are kept for --resume", markup=False)
        raise
    _show(outcome, output, as_json=as_json)


def _show_plan(gathering: "Gathering", output: Path, *, as_json: bool) -> None:
    from moehub.federation.deploy.plan import plan

    planned = plan(gathering)
    if as_json:
        click.echo(files.to_json({**dataclasses.asdict(planned), "output": str(output)}), nl=False)
        return
    nodes = ", ".join(f"{domain} on {count}" for domain, count in planned.domains.items())
    click.echo(
        f"would train {nodes} node(s) in {planned.rounds} rounds of {planned.steps} steps ({planned.aggregation}); "
        f"{planned.carried:,} bytes to and from each node in each round; {planned.processes} processes; "
        f"experts in {output / 'experts'}"
    )


def _show(outcome: "Outcome", output: Path, *, as_json: bool) -> None:
    from moehub.console import console
    from moehub.errors import FederationError

    if as_json:
        click.echo(files.to_json({**dataclasses.asdict(outcome), "output": str(output)}), nl=False)
    elif outcome.experts:
        _show_experts(outcome)
    if outcome.failure:
        raise FederationError(outcome.failure)
    if outcome.experts:
        console.print(f"Publish them: moehub federate push {output} YOUR-NAME", markup=False, soft_wrap=True)


def _show_experts(outcome: "Outcome") -> None:
    from rich.table import Table
    from rich.text import Text

    from moehub.console import results

    table = Table(box=None, pad_edge=False)
    for heading in ("expert", "nodes", "base loss", "expert loss", "folder"):
        table.add_column(heading, justify="right" if heading in ("nodes", "base loss", "expert loss") else "left")
    for expert in outcome.experts:
        table.add_row(
            Text(expert.domain),
            str(expert.nodes),
            *("–" if loss is None else f"{loss:.4f}" for loss in (expert.base_loss, expert.expert_loss)),
            Text(expert.folder, overflow="fold"),
        )
    results.print(table)
