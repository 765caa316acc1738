"""What the commands about text share."""

from pathlib import Path

import click

FILE = click.Path(dir_okay=False, path_type=Path)
IN = click.Path(path_type=Path, allow_dash=True)

sources = click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=IN)
threshold = click.option(
    "--threshold",
    type=float,
    default=0.8,
    show_default=True,
    help="Share of word trigrams that two texts have in common, of all that either has, to count as near-duplicates.",
)
dry_run = click.option("--dry-run", is_flag=True, help="Read and count everything, write nothing.")
