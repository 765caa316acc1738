"""`moehub hub fsck`: check everything that a hub holds."""

import dataclasses
from pathlib import Path

import click

from moehub import files
from moehub.cli import options
from moehub.cli.hub.root import root
from moehub.console import console


@click.command("fsck")
@root
@click.option("--deep", is_flag=True, help="Read every file and compare its sha256.")
@options.as_json
@click.pass_context
def command(context: click.Context, root: Path, deep: bool, as_json: bool) -> None:
    """Check everything that a hub holds; each fault is shown with its cure, and makes the exit code 1.

    It works while the hub serves.

    \b
    Example:
      moehub hub fsck
      moehub hub fsck --root /srv/hub --deep
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.hubserver.store.fsck import check
    from moehub.hubserver.store.store import open_store

    report = check(open_store(root), deep=deep)
    if as_json:
        click.echo(files.to_json(dataclasses.asdict(report)), nl=False)
    else:
        for line in (*report.faults, *report.notes):
            console.print(line, markup=False, soft_wrap=True)
        found = f"{len(report.faults)} faults" if report.faults else "no fault"
        held = f"{report.repos} repos, {report.commits} commits, {report.blobs} files"
        console.print(f"{found} in {held}{', each of them read' if deep else ''}", markup=False, soft_wrap=True)
    context.exit(1 if report.faults else 0)
