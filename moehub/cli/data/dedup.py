"""`moehub data dedup`: leave out what repeats another record."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import files
from moehub.cli import options
from moehub.cli.data import arguments
from moehub.console import console, results

if TYPE_CHECKING:
    from moehub.corpus.dedup import Outcome

_EXPLAINED = {
    "records": "read",
    "exact": "same text as one before",
    "near": "nearly the same as one before",
    "theirs": "kept by other contributors",
    "kept": "kept",
}


@click.command("dedup")
@arguments.sources
@click.option("--output", metavar="FILE", type=arguments.FILE, help="What stays: .jsonl, .parquet or .txt.")
@arguments.threshold
@click.option(
    "--signatures",
    metavar="FILE",
    type=arguments.FILE,
    help="Write signatures of what stays, without text, for other contributors.",
)
@click.option(
    "--against",
    multiple=True,
    metavar="FILE",
    type=arguments.FILE,
    help="Signatures of contributors who came first: what is like theirs is left out. Repeat it.",
)
@click.option(
    "--among",
    multiple=True,
    metavar="FILE",
    type=arguments.FILE,
    help="Signatures of contributors who all do the same: what several have stays with one. Repeat it for all.",
)
@click.option(
    "--salt-file",
    metavar="FILE",
    type=arguments.FILE,
    help="A secret that the contributors share: without it nobody can compare texts with the signatures.",
)
@click.option("--report", metavar="FILE", type=arguments.FILE, help="Write what was left out and why, as JSON lines.")
@arguments.dry_run
@options.as_json
def command(
    *,
    sources: tuple[Path, ...],
    output: Path | None,
    threshold: float,
    signatures: Path | None,
    against: tuple[Path, ...],
    among: tuple[Path, ...],
    salt_file: Path | None,
    report: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Leave out records that are the same as one before them, or nearly so.

    The first of several stays. Contributors who may not show each other their text exchange signatures: with --among
    each leaves out what another keeps, by a rule that needs no talking.

    \b
    Examples:
      moehub data dedup law.jsonl more.jsonl --output once.jsonl --report dropped.jsonl
      moehub data dedup law.jsonl --output once.jsonl --signatures north.sig --salt-file salt
      moehub data dedup once.jsonl --output mine.jsonl --among north.sig --among south.sig --salt-file salt
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    if output is None and signatures is None and not dry_run:
        raise click.UsageError("say what is to be written: --output FILE, --signatures FILE, or nothing with --dry-run")
    from moehub.corpus import dedup, writing
    from moehub.corpus import signatures as signed

    if output is not None:
        writing.check_place(output, sources)
    secret = signed.OPEN if salt_file is None else signed.read_secret(salt_file)
    with console.status("comparing texts"):
        outcome = dedup.dedup(sources, threshold, dedup.Others(against, among, secret))
    if not dry_run:
        outcome.write(output, signatures, report)
    _show(outcome, as_json=as_json)


def _show(outcome: "Outcome", *, as_json: bool) -> None:
    counts = outcome.to_dict()
    if as_json:
        click.echo(files.to_json(counts), nl=False)
        return
    from rich.table import Table

    table = Table(title="Records", show_header=False)
    for name, explained in _EXPLAINED.items():
        table.add_row(explained, f"{counts[name]:,}")
    results.print(table)
