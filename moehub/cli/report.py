"""`moehub report`: what each expert is worth to a MoE."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub.cli import named, options
from moehub.console import console, progress, results

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from moehub.attribution import Account

_FRAME, _CELL = 4, 3
"""Columns of a terminal that a table takes for itself, and for each cell after the first."""
_UNTUNED = (
    "note: this MoE was tuned, and no expert can be taken out of a tuned gate exactly: these are the figures of its "
    "gate before it was tuned. `moehub eval` measures it as it is"
)
_DELTA = "Δ: what the MoE loses without the expert, nats per token; above 0 it helps."
_BY_ITSELF = "alone: what the base gains where every token goes to the expert."
_ASK_FOR_ALONE = "What each does by itself: --alone."


@click.command(name="report")
@click.argument("moe")
@click.option("--data", "data", multiple=True, required=True, help="NAME=FILE. Repeat it for more texts or files.")
@click.option("--alone", is_flag=True, help="Measure each expert by itself too: one more pass over the texts for each.")
@click.option("--base", help="Where the base is, if not where the MoE says.")
@click.option("--context", type=int, help="Tokens of a window. [default: the model's context, at most 1024]")
@options.backend
@options.resident
@click.option(
    "--plot",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the table as a figure, .png or .svg. Needs moehub[plot].",
)
@options.as_json
def command(
    moe: str,
    data: tuple[str, ...],
    alone: bool,
    base: str | None,
    context: int | None,
    backend: str,
    resident: int | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Say what each expert is worth to MOE on texts: what is routed to it, and what is lost without it.

    The loss without an expert is that of the MoE which `moehub merge --remove` makes, exactly. Nothing is written. Of a
    MoE that was tuned, the gate as it was before is measured: only there is leaving an expert out exact.

    \b
    Examples:
      moehub report moe --data law=law.test.jsonl --data code=code.test.jsonl
      moehub report moe --data law=law.test.jsonl --alone --plot worth.png
    """  # noqa: D301
    from moehub import attribution, evaluation, models, plots

    texts = named.read("--data", data, "law=law.test.jsonl")
    if plot is not None:
        plots.require(plot)
    opened = models.open_model(moe, base=base, backend=backend, resident=resident, tuned=False)
    if opened.kind != "moe":
        raise click.UsageError(f"report is about the experts of a MoE, and {moe} is a {opened.kind}: use moehub eval")
    tuned = opened.model.was_tuned
    if tuned:
        console.print(_UNTUNED, soft_wrap=True)
    rows = {name: evaluation.read_rows(files, opened, context_length=context) for name, files in texts.items()}
    with progress("measuring", attribution.steps(opened.model.names, rows, alone=alone)) as advance:
        accounts = attribution.attribute(opened, rows, alone=alone, on_step=lambda note: advance(1, note))
    together = attribution.pooled(list(accounts.values()))
    if plot is not None:
        attribution.draw(plot, together, title=_title(opened.name, accounts))
    if as_json:
        each = {name: account.to_dict() for name, account in accounts.items()}
        click.echo(
            json.dumps({"moe": moe, "without_tuning": tuned, "texts": each, "together": together.to_dict()}, indent=2)
        )
    else:
        _show(_title(opened.name, accounts), accounts, together)


def _title(moe: str, accounts: Mapping[str, "Account"]) -> str:
    texts = ", ".join(accounts) if len(accounts) <= 3 else f"{len(accounts)} texts"
    return f"{moe}: what each expert is worth on {texts}"


def _show(title: str, accounts: Mapping[str, "Account"], together: "Account") -> None:
    from moehub.attribution import NEITHER_ALONE, ranked

    names, alone = ranked(together), _alone(together)
    _show_losses(accounts, together)
    _show_experts(title, names, together)
    results.print(f"{_DELTA}\n{_BY_ITSELF if alone else _ASK_FOR_ALONE}\n{NEITHER_ALONE}\n", markup=False)
    if len(accounts) > 1:
        _show_each("Δ on each text", names, accounts, lambda one: one.helps)
    if len(accounts) > 1 and alone:
        _show_each("alone on each text", names, accounts, lambda one: one.gain_alone)


def _alone(account: "Account") -> bool:
    return all(worth.loss_alone is not None for worth in account.experts.values())


def _show_losses(accounts: Mapping[str, "Account"], together: "Account") -> None:
    table = _table("loss, nats per token", ("text", "tokens", "base", "MoE", "gain"))
    for name, one in accounts.items():
        table.add_row(_cell(name), *_losses(one))
    if len(accounts) > 1:
        table.add_section()
        table.add_row("together", *_losses(together))
    results.print(table)


def _losses(one: "Account") -> list[str]:
    return [f"{one.tokens:,}", f"{one.base_loss:.4f}", f"{one.loss:.4f}", _signed(one.gain)]


def _show_experts(title: str, names: Sequence[str], together: "Account") -> None:
    alone = _alone(together)
    columns = ("expert", "routed", "loss without", "Δ", "of the gain")
    table = _table(title, (*columns, "alone") if alone else columns)
    for name in names:
        worth = together.experts[name]
        cells = [
            f"{100 * worth.share:.1f} %",
            f"{worth.loss_without:.4f}",
            _signed(together.helps(name)),
            _percent(together.share_of_gain(name)),
        ]
        table.add_row(_cell(name), *cells, *([_signed(together.gain_alone(name))] if alone else []))
    table.add_section()
    table.add_row("null", f"{100 * together.null_share:.1f} %")
    results.print(table)


def _show_each(
    title: str,
    names: Sequence[str],
    accounts: Mapping[str, "Account"],
    figure: Callable[["Account"], Callable[[str], float | None]],
) -> None:
    """Show a figure of every expert on every text, where the screen is wide enough."""
    width = _FRAME + max(len(name) for name in names) + sum(_CELL + max(7, len(text)) for text in accounts)
    if width > results.width:
        results.print(f"{title}: {len(accounts)} texts are too wide for this screen, --json has them", markup=False)
        return
    table = _table(title, ("expert", *accounts))
    for name in names:
        table.add_row(_cell(name), *(_signed(figure(account)(name)) for account in accounts.values()))
    results.print(table)


def _table(title: str, columns: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(title=_cell(title))
    for number, column in enumerate(columns):
        table.add_column(_cell(column), justify="right" if number else "left", overflow="fold", no_wrap=number > 0)
    return table


def _cell(text: str) -> "Text":
    """Return text in which nothing is markup."""
    from rich.text import Text

    return Text(text)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+z.4f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:z.1f} %"
