"""`moehub eval`: loss, perplexity and routing of a base, an expert or a MoE."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub.console import progress, results

if TYPE_CHECKING:
    from moehub.evaluation import Score

Scores = dict[str, dict[str, "Score"]]
"""Name of a model → name of a text → score."""


@click.command(name="eval")
@click.argument("model")
@click.option("--data", "data", multiple=True, required=True, help="NAME=FILE. Repeat it for more texts or files.")
@click.option("--against", multiple=True, help="Another base, expert or MoE to measure beside it. Repeat it.")
@click.option("--base", help="Where the base is, if not where the expert or the MoE says.")
@click.option("--context", type=int, help="Tokens of a window. [default: the model's context, at most 1024]")
@click.option("--backend", default="auto", show_default=True, help="How a MoE's sparse layers are computed.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def command(
    model: str,
    data: tuple[str, ...],
    against: tuple[str, ...],
    base: str | None,
    context: int | None,
    backend: str,
    as_json: bool,
) -> None:
    """Measure MODEL on texts: loss in nats per token, perplexity, and where a MoE sends the tokens.

    Answers count where the data has prompts and answers; every token counts in plain text.

    \b
    Example:
      moehub eval moe --data law=law.test.jsonl --data code=code.test.jsonl --against base
    """  # noqa: D301
    from moehub import evaluation, models

    texts = _texts(data)
    scores: Scores = {}
    with progress("evaluating", len(texts) * (1 + len(against))) as advance:
        for reference in (model, *against):
            opened = models.open_model(reference, base=base, backend=backend)
            scores[reference] = {}
            for name, files in texts.items():
                rows = evaluation.read_rows(files, opened, context_length=context)
                scores[reference][name] = evaluation.evaluate(opened, rows)
                advance(1, f"{opened.name} on {name}")
    if as_json:
        click.echo(json.dumps(_as_dict(scores), indent=2))
    else:
        _show(scores)


def _texts(data: tuple[str, ...]) -> dict[str, list[Path]]:
    texts: dict[str, list[Path]] = {}
    for one in data:
        name, equals, file = one.partition("=")
        if not equals or not name or not file:
            raise click.UsageError(f"--data {one!r} is no NAME=FILE, as in --data law=law.test.jsonl")
        texts.setdefault(name, []).append(Path(file))
    return texts


def _as_dict(scores: Scores) -> dict[str, object]:
    return {
        model: {name: {**dataclasses.asdict(score), "perplexity": score.perplexity} for name, score in texts.items()}
        for model, texts in scores.items()
    }


def _show(scores: Scores) -> None:
    from rich.table import Table

    table = Table(title="loss in nats per token")
    for column in ("model", "text", "loss", "perplexity", "tokens"):
        table.add_column(column, justify="left" if column in ("model", "text") else "right", overflow="fold")
    for model, texts in scores.items():
        for name, score in texts.items():
            table.add_row(model, name, f"{score.loss:.4f}", f"{score.perplexity:.2f}", f"{score.tokens:,}")
    results.print(table)
    for model, texts in scores.items():
        routed = {name: score.routing for name, score in texts.items() if score.routing is not None}
        if routed:
            _show_routing(model, routed)


def _show_routing(model: str, routed: Mapping[str, Mapping[str, float]]) -> None:
    from rich.table import Table

    names = list(next(iter(routed.values())))
    table = Table(title=f"{model}: share of the tokens, %")
    table.add_column("text")
    for name in names:
        table.add_column(name, justify="right")
    for text, shares in routed.items():
        table.add_row(text, *(f"{100 * shares[name]:.1f}" for name in names))
    results.print(table)
