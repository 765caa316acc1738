"""`moehub doctor`: is everything here, and what to do where it is not."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from moehub import console, files
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.diagnosis import Finding


@click.command("doctor")
@options.hub
@options.as_json
@click.pass_context
def command(context: click.Context, *, hub: str | None, as_json: bool) -> None:
    """Check this machine: Python, packages, devices, memory, disk, backends, hub and token.

    Everything that is missing is shown with its cure. Exits with 1 only where something is missing that moehub
    cannot work without. Only the hub is asked, for three seconds at most.

    \b
    Example:
      moehub doctor
      moehub doctor --hub https://hub.example.org --json
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.diagnosis import diagnose

    findings = diagnose(hub)
    if as_json:
        click.echo(files.to_json([dataclasses.asdict(finding) for finding in findings]), nl=False)
    else:
        _show(findings)
    context.exit(1 if any(finding.required and not finding.fine for finding in findings) else 0)


def _show(findings: "Sequence[Finding]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    topic = ""
    for finding in findings:
        mark = "ok" if finding.fine else "MISSING" if finding.required else "look"
        table.add_row(
            "" if finding.topic == topic else finding.topic, Text(finding.name), Text(f"{mark:<8}{finding.found}")
        )
        topic = finding.topic
        if finding.cure:
            table.add_row("", "", Text(f"→ {finding.cure}"))
    console.results.print(table)
