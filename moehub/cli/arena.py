"""`moehub arena`: models against each other, as Elo numbers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moehub.cli import answerers, options
from moehub.console import console, progress, results

if TYPE_CHECKING:
    from moehub.answering.answerer import Sampling
    from moehub.judging.arena import Outcome
    from moehub.judging.rating import Battle, Rating


@click.command("arena")
@click.option(
    "--model",
    "models",
    metavar="NAME=REF",
    multiple=True,
    help="A base, an expert or a MoE, or http://host/v1#model, and what it is called. Repeat it for more.",
)
@click.option(
    "--data",
    "sources",
    metavar="FILE",
    multiple=True,
    type=click.Path(allow_dash=True, path_type=Path),
    help="The prompts that all models answer. Repeat it for more.",
)
@click.option("--judge", metavar="REF", help="Who compares the answers; named as a model is.")
@click.option("--question", help="What makes an answer good.  [default: the judge's own opinion]")
@click.option(
    "--pairs", type=click.IntRange(min=1), help="Prompts that each two models are compared on. [default: all]"
)
@click.option(
    "--output",
    metavar="FOLDER",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keeps answers and comparisons: an arena that was killed goes on, and more models can join it.",
)
@click.option(
    "--comparisons",
    metavar="FILE",
    multiple=True,
    type=click.Path(allow_dash=True, path_type=Path),
    help="Rate by comparisons that were made already: records of a, b and winner. Repeat it for more.",
)
@click.option(
    "--method",
    default="bradley-terry",
    show_default=True,
    type=click.Choice(["bradley-terry", "elo"]),
    help="The best fit to all comparisons at once, or Elo's way, one after another.",
)
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the ratings as a figure, .png or .svg. Needs moehub[plot].",
)
@answerers.answering
@click.option("--seed", default=0, show_default=True, type=int, help="Of sampled answers, and of the intervals.")
@answerers.judging
@click.option("--dry-run", is_flag=True, help="Say how much would be asked, ask nothing.")
@options.as_json
def command(
    *,
    models: tuple[str, ...],
    sources: tuple[Path, ...],
    judge: str | None,
    question: str | None,
    pairs: int | None,
    output: Path | None,
    comparisons: tuple[Path, ...],
    method: str,
    plot: Path | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Rate models by comparing their answers: all answer the same prompts, and a judge compares them two by two.

    Every two answers are shown to the judge in both orders, and what it prefers in one order alone is a tie. Ratings
    are Elo points with a mean of 1000 and 95 % intervals. With --comparisons nothing is asked.

    \b
    Examples:
      moehub arena --model moe=moe --model base=org/base --data prompts.jsonl --judge org/judge --output arena
      moehub arena --model new=./other --data prompts.jsonl --judge org/judge --output arena --plot arena.png
      moehub arena --comparisons battles.jsonl
    """  # noqa: D301
    from moehub import plots
    from moehub.answering.answerer import Sampling
    from moehub.judging import battles

    if plot is not None:
        plots.require(plot)
    if comparisons:
        if models or sources or judge or output:
            raise click.UsageError("--comparisons rates what was compared already: leave --model, --data and the like")
        _report(battles.read(comparisons), method, seed, plot, as_json=as_json)
        return
    if not (sources and judge and output):
        raise click.UsageError("give --model, --data, --judge and --output; or --comparisons, to rate by those alone")
    sampling = Sampling(max_new_tokens, temperature, top_p, seed if temperature else None)
    outcome = _run(models, sources, judge, question, pairs, output, sampling, dry_run=dry_run, given=given)
    if outcome is not None:
        report = _report(outcome.battles, method, seed, plot, as_json=as_json, outcome=outcome)
        from moehub import files
        from moehub.judging.arena import RATINGS_FILE

        files.write_text(output / RATINGS_FILE, files.to_json(report))


def _run(
    models: Sequence[str],
    sources: Sequence[Path],
    judge: str,
    question: str | None,
    pairs: int | None,
    output: Path,
    sampling: "Sampling",
    *,
    dry_run: bool,
    given: Mapping[str, Any],
) -> "Outcome | None":
    from moehub.experts import data
    from moehub.judging import arena, opening

    way = answerers.access(**given)
    tasks = arena.unique(data.read_tasks(sources))
    held = arena.Arena(output, dict(_model(one) for one in models), arena.Rules(sampling, question))
    steps = held.steps(tasks, pairs)
    if dry_run:
        answers = len(held.models) * len(tasks)
        click.echo(
            f"would ask {len(held.models)} models for {answers:,} answers to {len(tasks):,} prompts and {judge} for "
            f"{steps - answers:,} comparisons in both orders, less what {output} holds already"
        )
        return None
    with progress("arena", steps) as advance:
        return held.run(
            tasks,
            judge,
            pairs=pairs,
            open_model=lambda reference: opening.open_answerer(reference, way),
            on_step=advance,
        )


def _model(given: str) -> tuple[str, str]:
    name, equals, reference = given.partition("=")
    if not equals or not name or not reference:
        raise click.UsageError(f"--model {given!r} is no NAME=REF, as in --model moe=./moe")
    return name, reference


def _report(
    battles: "Sequence[Battle]",
    method: str,
    seed: int,
    plot: Path | None,
    *,
    as_json: bool,
    outcome: "Outcome | None" = None,
) -> dict[str, Any]:
    """Show the ratings, and return them as JSON has them."""
    from typing import cast

    from moehub.judging import rating

    ratings = rating.rate(battles, method=cast("rating.Method", method), seed=seed)
    rates = rating.win_rates(battles)
    position = None if outcome is None or outcome.bias is None else outcome.bias.to_dict()
    report = {
        "method": method,
        "comparisons": len(battles),
        "ratings": [one.to_dict() for one in ratings],
        "win_rates": rates,
        "position": position,
    }
    meters = {} if outcome is None else outcome.meters
    if plot is not None:
        _draw(plot, ratings, len(battles))
    if as_json:
        asked = {name: meter.to_dict() for name, meter in meters.items()}
        click.echo(json.dumps({**report, "asked": asked}, indent=2, ensure_ascii=False))
        return report
    _show(ratings, rates, len(battles))
    if position is not None:
        results.print(
            f"The judge prefers what stands first by {position['towards_first']:+.3f}, and in "
            f"{100 * position['decided']:.1f} % of the comparisons the place decided: these are ties.",
            markup=False,
        )
    for name, meter in meters.items():
        console.print(answerers.cost(name, meter), markup=False, soft_wrap=True)
    return report


def _show(ratings: "Sequence[Rating]", rates: Mapping[str, Mapping[str, float]], comparisons: int) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=f"{comparisons:,} comparisons")
    for column in ("model", "rating", "95 %", "wins", "ties", "losses"):
        table.add_column(column, justify="left" if column == "model" else "right", overflow="fold")
    for one in ratings:
        interval = f"{one.low:.0f} … {one.high:.0f}"
        counts = (f"{value:,}" for value in (one.wins, one.ties, one.losses))
        table.add_row(Text(one.name), f"{one.rating:.0f}", interval, *counts)
    results.print(table)
    names = [one.name for one in ratings]
    matrix = Table(title="share of comparisons won, a tie as half")
    for column in ("", *names):
        matrix.add_column(Text(column), justify="right" if column else "left", overflow="fold")
    for name in names:
        shares = [rates[name].get(other) for other in names]
        matrix.add_row(Text(name), *("–" if share is None else f"{100 * share:.0f} %" for share in shares))
    if len(names) > 2:
        results.print(matrix)


def _draw(file: Path, ratings: "Sequence[Rating]", comparisons: int) -> None:
    from moehub import plots

    note = f"Elo points and 95 % intervals of {comparisons:,} comparisons; the mean is 1000."
    with plots.figure(file, title="Arena", size=(6.0, 1.2 + 0.32 * len(ratings)), note=note) as panels:
        plots.dots(
            panels[0],
            [one.name for one in ratings],
            [one.rating for one in ratings],
            [(one.low, one.high) for one in ratings],
            title="rating",
            form="{:.0f}",
        )
