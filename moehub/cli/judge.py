"""`moehub judge`: answers, judged by models."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moehub.cli import answerers, options, place
from moehub.console import console, progress, results

if TYPE_CHECKING:
    from rich.table import Table

    from moehub.judging.scoring import Judgements
    from moehub.judging.subjects import Subject


@click.command("judge")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True, type=click.Path(allow_dash=True, path_type=Path))
@click.option(
    "--judge",
    "judges",
    metavar="REF",
    multiple=True,
    required=True,
    help="A base, an expert or a MoE, or http://host/v1#model. Repeat it to compare judges.",
)
@click.option("--question", help="Asked about each answer; of pairs, what makes an answer good.")
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write every record with what was said of it, as JSON lines; a run that was killed goes on.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file at --output, once the new one is finished.")
@answerers.judging
@options.as_json
def command(
    *,
    sources: tuple[Path, ...],
    judges: tuple[str, ...],
    question: str | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Judge the answers in FILE with models.

    A record holds a prompt and an answer (`completion`, `output`, `messages`), of which the judge is asked the
    question; or two answers (`chosen` and `rejected`, or `a` and `b`), which it compares in both orders: whatever it
    prefers in one order alone is a tie. Where records carry a `label`, it is told how far the judge agrees with them;
    several judges are compared with each other.

    \b
    Examples:
      moehub judge answers.jsonl --judge moe --question "Is the answer correct?" --output scored.jsonl
      moehub judge pairs.jsonl --judge http://127.0.0.1:8000/v1#small --judge moe --json
    """  # noqa: D301
    from moehub import ledger
    from moehub.judging import opening, scoring, subjects

    way = answerers.access(**given)
    if output is not None:
        place.new(output, overwrite=overwrite)
    found = subjects.read(sources)
    kept = ledger.Ledger(None if output is None else place.partial(output))
    with progress("judging", len(found) * len(judges)) as advance:
        said, meters = scoring.judge(
            found,
            judges,
            question,
            open_judge=lambda reference: opening.open_answerer(reference, way),
            ledger=kept,
            on_step=advance,
        )
    if output is not None:
        _write(output, found, said)
        kept.remove()
    summary = scoring.summary(found, said)
    if as_json:
        costs = {name: meter.to_dict() for name, meter in meters.items()}
        click.echo(json.dumps({**summary, "asked": costs}, indent=2, ensure_ascii=False))
        return
    _show(summary)
    for name, meter in meters.items():
        console.print(answerers.cost(name, meter), markup=False, soft_wrap=True)


def _write(output: Path, found: "list[Subject]", said: "Judgements") -> None:
    from moehub import files, ledger
    from moehub.judging import scoring

    files.write_text(output, "".join(map(ledger.line, scoring.records_of(found, said))))


def _show(summary: Mapping[str, Any]) -> None:
    from rich.text import Text

    kinds = list(next(iter(summary["judges"].values()))["verdicts"])
    pairs = summary["kind"] == "pairs"
    columns = ["judge", *kinds, "p(a better)" if pairs else "p(yes)"]
    columns += (["first +", "by place"] if pairs else []) + (["agrees", "κ", "95 %"] if summary["labelled"] else [])
    table = _table(f"{summary['subjects']:,} {summary['kind']}, {summary['labelled']:,} with a label", columns)
    for name, one in summary["judges"].items():
        cells = [*(f"{one['verdicts'][kind]:,}" for kind in kinds), f"{one['mean']:.3f}"]
        cells += _position(one["position"]) if pairs else []
        table.add_row(Text(name), *cells, *(_agreement(one["labels"]) if one["labels"] else []))
    results.print(table)
    if pairs:
        results.print(
            "first +: how far p(the first is better) lies above one half. by place: pairs in which the same place won "
            "in both orders, which are ties.",
            markup=False,
        )
    _show_between(summary)


def _show_between(summary: Mapping[str, Any]) -> None:
    from rich.text import Text

    if not summary["between"]:
        return
    table = _table("judges with each other", ["judges", "agree", "κ", "95 %"])
    for one in summary["between"]:
        table.add_row(Text(" · ".join(one["judges"])), *_agreement(one))
    results.print(table)


def _position(one: Mapping[str, float] | None) -> list[str]:
    return ["–", "–"] if one is None else [f"{one['towards_first']:+.3f}", f"{100 * one['decided']:.1f} %"]


def _agreement(one: Mapping[str, Any]) -> list[str]:
    """Return the share of equal verdicts, kappa and its interval."""
    raw = f"{100 * one['raw']:.1f} %"
    if one["kappa"] is None:
        return [raw, "–", "–"]
    return [raw, f"{one['kappa']:.3f}", f"{one['low']:.3f} … {one['high']:.3f}"]


def _table(title: str, columns: list[str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table
