"""`moehub data check`: what is wrong with records."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import files
from moehub.cli import options
from moehub.cli.data import arguments
from moehub.console import progress, results

if TYPE_CHECKING:
    from moehub.corpus.checking import Report

_NAMES = {
    "broken": "none to learn from",
    "empty": "empty",
    "duplicate": "exact duplicates",
    "too_long": "too long for the context",
    "private": "private data",
    "leaked": "evaluation items",
}


@click.command("check")
@arguments.sources
@click.option(
    "--kind",
    type=click.Choice(("text", "preference", "rated", "task")),
    help="What every record has to be.  [default: what its fields show]",
)
@click.option("--base", help="Count tokens with this base's tokenizer, else four characters are taken for one.")
@click.option("--context", type=click.IntRange(1), help="Tokens an example may have.  [default: the base's context]")
@click.option(
    "--against",
    multiple=True,
    metavar="FILE",
    type=arguments.FILE,
    help="Evaluation items that must not be among the records. Repeat it for more files.",
)
@click.option(
    "--words",
    type=click.IntRange(4),
    default=13,
    show_default=True,
    help="Words in a row that a record may not share with an evaluation item.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 if anything was found.")
@click.option("--clean", metavar="FILE", type=arguments.FILE, help="Write the records without a fault.")
@options.as_json
def command(
    sources: tuple[Path, ...],
    kind: str | None,
    base: str | None,
    context: int | None,
    against: tuple[Path, ...],
    words: int,
    strict: bool,
    clean: Path | None,
    as_json: bool,
) -> None:
    """Say what is wrong with the records of files, in one pass over all of them.

    Found are files that cannot be read, records that are none to learn from, empty ones, exact duplicates, examples
    that are too long for the context, private data by its form (shown masked), and evaluation items.

    \b
    Examples:
      moehub data check law.jsonl more.parquet --base org/base --against law.test.jsonl
      moehub data check pairs.jsonl --kind preference --strict --clean pairs.clean.jsonl
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.corpus import checking, items, writing

    if clean is not None:
        writing.check_place(clean, sources)
    chosen = next((one for one in items.KINDS if one == kind), None)
    demands = checking.Demands(chosen, context, base, against, words)
    with progress("checking", len(sources)) as advance:
        report = checking.check(sources, demands, on_file=advance)
    if clean is not None:
        writing.write(clean, report.clean)
    if as_json:
        click.echo(files.to_json(report.to_dict()), nl=False)
    else:
        _show(report, estimated=base is None)
    if strict and report.is_bad:
        raise click.exceptions.Exit(1)


def _show(report: "Report", *, estimated: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from moehub.corpus.checking import FAULTS

    table = Table(title="Records", show_header=False)
    table.add_row("read", f"{sum(report.files.values()):,} in {len(report.files)} file(s)")
    for form, count in sorted(report.forms.items()):
        table.add_row(f"  {form}", f"{count:,}")
    table.add_row("characters", f"{report.characters:,}")
    if report.longest:
        table.add_row("longest example", f"{'about ' * estimated}{report.longest:,} tokens")
    for fault in FAULTS:
        table.add_row(_NAMES[fault], f"{report.faults[fault]:,}")
        for kind, count in sorted(report.private.items()) if fault == "private" else ():
            table.add_row(f"  {kind}", f"{count:,}")
    table.add_row("without a fault", f"{len(report.clean):,}")
    results.print(table)
    for name, why in report.unreadable.items():
        results.print(Text(f"cannot be read: {why or name}"), soft_wrap=True)
    for fault in FAULTS:
        for line in report.examples.get(fault, []):
            results.print(Text(f"{_NAMES[fault]}: {line}"), soft_wrap=True)
        if report.faults[fault] > len(report.examples.get(fault, [])):
            more = report.faults[fault] - len(report.examples[fault])
            results.print(Text(f"{_NAMES[fault]}: and {more:,} more"), soft_wrap=True)
