"""`moehub hub backup`: copy a hub while it serves."""

import dataclasses
from pathlib import Path

import click

from moehub import files
from moehub.cli import options
from moehub.cli.hub.root import root
from moehub.console import console


@click.command("backup")
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@root
@options.as_json
def command(folder: Path, root: Path, as_json: bool) -> None:
    """Copy the hub to DIR, which is a hub's folder itself, while it serves.

    DIR holds the hub as it stood at one moment, with its tokens; it is complete or stays what it was. Where it holds an
    earlier copy of the same hub, only new files are copied. Files on the hub's own disk are linked and take no space:
    such a copy helps against mistakes, and not against a broken disk.

    \b
    Example:
      moehub hub backup /mnt/backup --root /srv/hub
      moehub hub serve --root /mnt/backup
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from rich.filesize import decimal

    from moehub.hubserver.store.backup import back_up
    from moehub.hubserver.store.store import open_store

    saved = back_up(open_store(root), folder)
    if as_json:
        click.echo(files.to_json(dataclasses.asdict(saved)), nl=False)
        return
    console.print(
        f"{folder} holds {saved.repos} repos, {saved.blobs} files ({decimal(saved.bytes)}); {saved.new} are new, "
        f"{saved.linked} of those links to the hub's own",
        markup=False,
        soft_wrap=True,
    )
