"""`moehub data mix`: one file out of several."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import files
from moehub.cli import options
from moehub.cli.data import arguments
from moehub.console import console, results

if TYPE_CHECKING:
    from moehub.corpus.mixing import Mix, Source


@click.command("mix")
@click.argument("sources", metavar="NAME=FILE[:WEIGHT]...", nargs=-1, required=True)
@click.option("--output", metavar="FILE", type=arguments.FILE, help="The mix: .jsonl, .parquet or .txt.")
@click.option("--records", type=click.IntRange(1), help="Records of the mix; weights are of records.")
@click.option("--tokens", type=click.IntRange(1), help="Tokens of the mix, about; weights are of characters.")
@click.option("--repeat", is_flag=True, help="Draw records again where a source has no more.")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which records are drawn.")
@arguments.dry_run
@options.as_json
def command(
    *,
    sources: tuple[str, ...],
    output: Path | None,
    records: int | None,
    tokens: int | None,
    repeat: bool,
    seed: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Draw records from sources by their weights, in an order that the seed decides.

    A weight is 1 where none is given. A name that comes twice is one source of several files, with the weight that
    it is given first. Without --records or --tokens the mix ends at the turn of a source that has no more. A token is
    taken for four characters.

    \b
    Examples:
      moehub data mix law=law.jsonl:3 prose=prose.txt:1 --output mixed.jsonl
      moehub data mix law=law.jsonl code=code.parquet:0.5 --tokens 2000000 --repeat --output mixed.jsonl
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    if output is None and not dry_run:
        raise click.UsageError("--output is missing: name the file to write, or say --dry-run")
    from moehub.corpus import mixing, writing

    named = _named(sources)
    if output is not None:
        writing.check_place(output, [path for source in named for path in source.files])
    mixed = mixing.mix(named, records=records, tokens=tokens, repeat=repeat, seed=seed)
    if output is not None and not dry_run:
        mixed.write(output)
    _show(mixed, repeat=repeat, as_json=as_json)


def _named(given: tuple[str, ...]) -> list["Source"]:
    from moehub.corpus.mixing import Source

    found: dict[str, Source] = {}
    for one in given:
        name, equals, place = one.partition("=")
        if not name or not equals or not place:
            raise click.UsageError(f"{one!r} is no NAME=FILE[:WEIGHT], as law=law.jsonl:3")
        file, weight = _weighted(place)
        before = found.get(name, Source(name, (), 1.0 if weight is None else weight))
        found[name] = dataclasses.replace(before, files=(*before.files, file))
    return list(found.values())


def _weighted(place: str) -> tuple[Path, float | None]:
    file, colon, weight = place.rpartition(":")
    if not colon or not file or Path(place).is_file():
        return Path(place), None
    try:
        return Path(file), float(weight)
    except ValueError:
        return Path(place), None


def _show(mixed: "Mix", *, repeat: bool, as_json: bool) -> None:
    if as_json:
        shares = [dataclasses.asdict(share) for share in mixed.shares]
        click.echo(files.to_json({"records": len(mixed.drawn), "sources": shares}), nl=False)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{len(mixed.drawn):,} records")
    for column in ("source", "records", "drawn", "characters", "asked", "reached"):
        table.add_column(column, justify="left" if column == "source" else "right", overflow="fold")
    for share in mixed.shares:
        counts = [f"{count:,}" for count in (share.records, share.drawn, share.characters)]
        table.add_row(Text(share.name), *counts, f"{100 * share.asked:.1f} %", f"{100 * share.reached:.1f} %")
    results.print(table)
    for share in mixed.shares:
        if share.exhausted:
            gave = "began anew" if repeat and share.drawn > share.records else "gave all that it has"
            console.print(f"note: {share.name} {gave}", markup=False, soft_wrap=True)
