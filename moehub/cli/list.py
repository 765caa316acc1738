"""`moehub list`: what a hub offers."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import console, files
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.hub import Hub, Listing


@click.command("list")
@click.option("--base", metavar="BASE", help="Only experts of this base: org/name, or a base's folder.")
@options.hub
@options.as_json
def command(base: str | None, hub: str | None, as_json: bool) -> None:
    """List the experts that a hub offers, with domain, base, licence and held-out loss.

    \b
    Example:
      moehub list --base org/base
      moehub list --hub /srv/experts --json
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.hub import open_hub

    source = open_hub(hub)
    listings = _of_base(source, base)
    if as_json:
        click.echo(files.to_json([dataclasses.asdict(listing) for listing in listings]), nl=False)
    elif listings:
        _show(listings)
    else:
        console.console.print(f"{source.location} offers no experts{f' of {base}' if base else ''}", markup=False)


def _of_base(source: "Hub", base: str | None) -> "list[Listing]":
    """Return the listings of one base; a base on disk is known by its digest, not by its folder's name."""
    if base is None or not Path(base).expanduser().is_dir():
        return source.experts(base)
    from moehub.base import weights_digest

    digest = weights_digest(Path(base).expanduser())
    return [listing for listing in source.experts() if listing.base.digest == digest]


def _show(listings: "Sequence[Listing]") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title, right in (("repo", 0), ("domain", 0), ("base", 0), ("licence", 0), ("loss", 1), ("base's", 1)):
        table.add_column(title, justify="right" if right else "left", overflow="fold")
    for listing in listings:
        metrics = listing.metrics
        losses = [f"{metrics.expert_loss:.3f}", f"{metrics.base_loss:.3f}"] if metrics else ["-", "-"]
        cells = [listing.repo, listing.domain, listing.base.reference, listing.license, *losses]
        table.add_row(*map(Text, cells))
    console.results.print(table)
