"""`moehub eval`: loss, perplexity and routing of a base, an expert or a MoE."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub.cli import named, options
from moehub.console import console, progress, results

if TYPE_CHECKING:
    from rich.table import Table

    from moehub.evaluation import Score

Scores = dict[str, dict[str, "Score"]]
"""Name of a model → name of a text → score."""


@click.command(name="eval")
@click.argument("model")
@click.option("--data", "data", multiple=True, required=True, help="NAME=FILE. Repeat it for more texts or files.")
@click.option("--against", multiple=True, help="Another base, expert or MoE to measure beside it. Repeat it.")
@click.option("--base", help="Where the base is, if not where the expert or the MoE says.")
@click.option("--context", type=int, help="Tokens of a window. [default: the model's context, at most 1024]")
@options.backend
@options.resident
@click.option("--keep", is_flag=True, help="Write the scores into the MoE's folder: they travel with it.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def command(
    model: str,
    data: tuple[str, ...],
    against: tuple[str, ...],
    base: str | None,
    context: int | None,
    backend: str,
    resident: int | None,
    keep: bool,
    as_json: bool,
) -> None:
    """Measure MODEL on texts: loss in nats per token, perplexity, and where a MoE sends the tokens.

    Answers count where the data has prompts and answers; every token counts in plain text.

    \b
    Example:
      moehub eval moe --data law=law.test.jsonl --data code=code.test.jsonl --against base
      moehub eval moe --data law=law.test.jsonl --against base --keep
    """  # noqa: D301
    from moehub import evaluation, models

    texts = named.read("--data", data, "law=law.test.jsonl")
    moe = evaluation.require_moe(Path(model).expanduser()) if keep else None
    scores: Scores = {}
    with progress("evaluating", len(texts) * (1 + len(against))) as advance:
        for reference in (model, *against):
            opened = models.open_model(reference, base=base, backend=backend, resident=resident)
            scores[reference] = {}
            for name, files in texts.items():
                rows = evaluation.read_rows(files, opened, context_length=context)
                scores[reference][name] = evaluation.evaluate(opened, rows)
                advance(1, f"{opened.name} on {name}")
    if as_json:
        click.echo(json.dumps(_as_dict(scores), indent=2))
    else:
        _show(scores)
    if moe is not None:
        of_base = next((scores[one] for one in against if evaluation.is_base_of(one, moe)), {})
        console.print(f"kept in {evaluation.keep(moe, scores[model], of_base)}", markup=False, soft_wrap=True)


def _as_dict(scores: Scores) -> dict[str, object]:
    return {
        model: {name: {**dataclasses.asdict(score), "perplexity": score.perplexity} for name, score in texts.items()}
        for model, texts in scores.items()
    }


def _show(scores: Scores) -> None:
    if len(scores) == 1:
        _show_one(next(iter(scores.values())))
    else:
        _compare(scores)
    for model, texts in scores.items():
        routed = {name: score.routing for name, score in texts.items() if score.routing is not None}
        if routed:
            _show_routing(model, routed)


def _show_one(texts: "Mapping[str, Score]") -> None:
    table = _table("loss in nats per token", ("text", "loss", "perplexity", "tokens"))
    for name, score in texts.items():
        table.add_row(name, f"{score.loss:.4f}", f"{score.perplexity:.2f}", f"{score.tokens:,}")
    results.print(table)


def _compare(scores: Scores) -> None:
    """Show one line for each text, with the models beside each other."""
    texts = list(next(iter(scores.values())))
    table = _table("loss in nats per token (perplexity: --json)", ("text", *scores, "tokens"))
    for text in texts:
        of_text = [scores[model][text] for model in scores]
        table.add_row(text, *(f"{score.loss:.4f}" for score in of_text), f"{of_text[0].tokens:,}")
    results.print(table)


def _table(title: str, columns: Sequence[str]) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="right" if number else "left", overflow="fold")
    return table


def _show_routing(model: str, routed: Mapping[str, Mapping[str, float]]) -> None:
    names = list(next(iter(routed.values())))
    table = _table(f"{model}: share of the tokens, %", ("text", *names))
    for text, shares in routed.items():
        table.add_row(text, *(f"{100 * shares[name]:.1f}" for name in names))
    results.print(table)
