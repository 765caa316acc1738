"""`moehub data split`: records to train on, and records to test with."""

from pathlib import Path

import click

from moehub import files
from moehub.cli import options
from moehub.cli.data import arguments
from moehub.console import console, results


@click.command("split")
@arguments.sources
@click.option("--train", metavar="FILE", type=arguments.FILE, help="Records to train on: .jsonl, .parquet or .txt.")
@click.option("--test", metavar="FILE", type=arguments.FILE, help="Records to test with.")
@click.option("--valid", metavar="FILE", type=arguments.FILE, help="Records to choose settings by, as many again.")
@click.option("--share", type=float, default=0.05, show_default=True, help="Of the records, about, for each held side.")
@click.option(
    "--apart/--together",
    default=True,
    show_default=True,
    help="Keep near-duplicates on one side, not copies alone.",
)
@arguments.threshold
@arguments.dry_run
@options.as_json
def command(
    *,
    sources: tuple[Path, ...],
    train: Path | None,
    test: Path | None,
    valid: Path | None,
    share: float,
    apart: bool,
    threshold: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Part records by a digest of what they say, so that their order and their files do not matter.

    Copies and near-duplicates of a record stay on its side.

    \b
    Examples:
      moehub data split law.jsonl --train law.train.jsonl --test law.test.jsonl
      moehub data split law.jsonl --train t.jsonl --test e.jsonl --valid v.jsonl --share 0.1
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.corpus import splitting, writing

    places = [place for place in (train, test, valid) if place is not None]
    for number, place in enumerate(places):
        writing.check_place(place, [*sources, *places[:number]])
    if not dry_run and (train is None or test is None):
        raise click.UsageError("--train and --test are missing: name both files, or say --dry-run")
    with console.status("comparing texts"):
        sides = splitting.split(sources, share, valid=valid is not None, apart=apart, threshold=threshold)
    if train is not None and test is not None and not dry_run:
        sides.write(train, test, valid)
    if as_json:
        click.echo(files.to_json(sides.to_dict()), nl=False)
        return
    from rich.table import Table

    table = Table(title="Records", show_header=False)
    for name, count in sides.to_dict().items():
        table.add_row(name, f"{count:,}")
    results.print(table)
