"""`moehub hub gc`: remove what nobody refers to."""

import dataclasses
import datetime as dt
from pathlib import Path

import click

from moehub import files
from moehub.cli import options
from moehub.cli.hub import time
from moehub.cli.hub.root import root
from moehub.console import console


@click.command("gc")
@root
@click.option(
    "--grace",
    callback=time.read,
    default="1d",
    show_default=True,
    metavar="TIME",
    help="How long an upload waits for its commit: 12h, 1d.",
)
@click.option("--dry-run", is_flag=True, help="Remove nothing; say what would be removed.")
@options.as_json
def command(root: Path, grace: dt.timedelta, dry_run: bool, as_json: bool) -> None:
    """Remove files that no commit refers to, and uploads that broke off.

    It works while the hub serves: neither an upload nor a commit at the same moment loses anything. Files of every
    commit stay as long as their repo, even where a later commit deletes them.

    \b
    Example:
      moehub hub gc --dry-run
      moehub hub gc --root /srv/hub --grace 12h
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from rich.filesize import decimal

    from moehub.hubserver.store.collection import collect
    from moehub.hubserver.store.store import open_store

    done = collect(open_store(root), grace=grace, dry_run=dry_run)
    if as_json:
        click.echo(files.to_json(dataclasses.asdict(done)), nl=False)
        return
    would = "would be removed" if dry_run else "removed"
    console.print(
        f"{would}: {done.blobs} files ({decimal(done.bytes)}), {done.links} uploads without a commit, "
        f"{done.uploads} that broke off",
        markup=False,
        soft_wrap=True,
    )
