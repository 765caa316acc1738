"""`moehub tune-router`: the gate of a MoE, trained on text."""

import dataclasses
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import config
from moehub.cli import options
from moehub.console import console, results

if TYPE_CHECKING:
    from moehub.tuning.polish import Preview
    from moehub.tuning.training import Outcome
    from moehub.tuning.updates import Share

_NO_REMOVAL = (
    "Experts can no longer be taken out exactly: --untuned of `moehub merge --into` brings back the gate from counts."
)
_NO_HELP = "note: nothing that was tried was better on the held-out text, so the MoE is as it was"


@click.command("tune-router")
@click.argument("moe")
@click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Text like that which the MoE is to answer: .txt, .jsonl, .json or .parquet; - is standard input. Repeat it.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), help="The tuned MoE's folder; it appears whole or not at all."
)
@click.option(
    "--update", type=click.Path(dir_okay=False, path_type=Path), help="Write what changed to this file, and no MoE."
)
@click.option(
    "--average",
    "updates",
    multiple=True,
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Take the mean of updates that others sent. Repeat it for each.",
)
@click.option("--experts", is_flag=True, help="Train the experts too.")
@click.option("--base", help="Where the base is, if not where the MoE says.")
@options.backend
@click.option("--config", "settings", type=click.Path(path_type=Path), help="Settings: a YAML file of `key: value`.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, as max_steps=50; an unknown KEY lists all. Repeat it.",
)
@click.option("--overwrite", is_flag=True, help="Replace the MoE at --output, once the tuned one is finished.")
@click.option("--dry-run", is_flag=True, help="Read and count everything, train nothing.")
@options.as_json
def command(
    *,
    moe: str,
    sources: tuple[Path, ...],
    output: Path | None,
    update: Path | None,
    updates: tuple[Path, ...],
    experts: bool,
    base: str | None,
    backend: str,
    settings: Path | None,
    assignments: tuple[str, ...],
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train the gate of MOE on text, from the gate that the contributors' counts make.

    A share of the text is held out, and what is written is never worse on it than MOE. The price: experts can no
    longer be added and removed exactly, unless `moehub merge --into FOLDER --untuned` drops the tuning.

    Contributors who cannot pool their text tune MOE each on their own with --update, and send the files, which hold no
    text; --average makes the next MoE of them.

    \b
    Examples:
      moehub tune-router moe --data proxy.jsonl --output tuned
      moehub tune-router moe --data mine.jsonl --update north.update
      moehub tune-router moe --average north.update --average south.update --output tuned
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    _refuse_mixtures(sources, output=output, update=update, updates=updates, experts=experts, dry_run=dry_run)
    from moehub.tuning.settings import TuneConfig

    chosen = config.load(TuneConfig, settings, assignments)
    from moehub.experts import data
    from moehub.tuning import polish

    if updates and output is not None:
        shares = polish.average(moe, updates, output, base=base, overwrite=overwrite)
        _show_shares(shares, output, as_json=as_json)
        return
    if output is not None:
        polish.check_place(output, overwrite=overwrite)
    examples = data.read(sources)
    opened = polish.open_moe(moe, chosen, experts=experts, base=base, backend=backend)
    if dry_run:
        _show_preview(polish.preview(opened, examples, chosen), as_json=as_json)
    elif update is not None:
        _show(polish.make_update(opened, examples, update, chosen), moe, update, update=True, as_json=as_json)
    elif output is not None:
        outcome = polish.tune(opened, examples, output, chosen, experts=experts)
        _show(outcome, moe, output, update=False, as_json=as_json)


def _refuse_mixtures(
    sources: Sequence[Path],
    *,
    output: Path | None,
    update: Path | None,
    updates: Sequence[Path],
    experts: bool,
    dry_run: bool,
) -> None:
    """Say what was meant, where options belong to different ways of tuning."""
    if updates and (sources or update or experts or dry_run):
        raise click.UsageError("--average takes updates and --output, and nothing else: give one or the other")
    if update is not None and experts:
        raise click.UsageError(
            "an update holds the gate alone: leave --experts out, and train experts together with `moehub federate`"
        )
    if update is not None and output is not None:
        raise click.UsageError("--update writes an update and --output a MoE: give one or the other")
    if update is None and output is None:
        raise click.UsageError("say what is to be written: --output FOLDER for a MoE, or --update FILE for an update")
    if not sources and not updates:
        raise click.UsageError("--data is missing: name text to tune on, or updates with --average")


def _show_preview(planned: "Preview", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(planned), indent=2))
        return
    click.echo(
        f"would learn {planned.learned:,} numbers of the gate from {planned.examples:,} examples ({planned.tokens:,} "
        f"tokens to learn) in {planned.rows:,} rows and {planned.steps:,} steps, and measure on "
        f"{planned.held_out_tokens:,} tokens; {planned.left_out} examples are longer than the context"
    )


def _show(outcome: "Outcome", moe: str, written: Path, *, update: bool, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"moe": moe, "written": str(written), **dataclasses.asdict(outcome)}, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{moe}, tuned"), show_header=False)
    table.add_row(f"held-out loss before, over {outcome.held_out_tokens:,} tokens", f"{outcome.before:.4f}")
    table.add_row("held-out loss now", f"{outcome.after:.4f}")
    table.add_row("kept", f"step {outcome.kept} of {outcome.steps}" if outcome.kept else "the start")
    table.add_row("tokens learned", f"{outcome.tokens:,}")
    for name, value in outcome.numbers.items():
        if value == outcome.began[name]:
            continue  # not learned
        table.add_row(name, f"{outcome.began[name]:.4g} → {value:.4g}")
    table.add_row("seconds", f"{outcome.seconds:.1f}")
    table.add_row("update" if update else "folder", Text(str(written), overflow="fold"))
    results.print(table)
    if not outcome.kept:
        console.print(_NO_HELP, soft_wrap=True)
    elif not update:
        console.print(_NO_REMOVAL, soft_wrap=True)
        console.print(
            f"Compare: moehub eval {shlex.quote(str(written))} --data NAME=FILE --against {shlex.quote(moe)}",
            markup=False,
            soft_wrap=True,
        )


def _show_shares(shares: Sequence["Share"], output: Path, *, as_json: bool) -> None:
    rows = [
        {
            "update": str(one.update.path),
            "tokens": one.update.facts.tokens,
            "share": one.share,
            "norm": one.update.norm,
            "scaled": one.scale,
        }
        for one in shares
    ]
    if as_json:
        click.echo(json.dumps({"folder": str(output), "updates": rows}, indent=2))
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title="the mean of updates, weighted by tokens")
    for column in ("update", "tokens", "share", "norm", "scaled"):
        table.add_column(column, justify="left" if column == "update" else "right", overflow="fold")
    for one in shares:
        table.add_row(
            Text(str(one.update.path)),
            f"{one.update.facts.tokens:,}",
            f"{100 * one.share:.1f} %",
            f"{one.update.norm:.3f}",
            f"{one.scale:.2f}" if one.scale < 1 else "–",
        )
    results.print(table)
    console.print(_NO_REMOVAL, soft_wrap=True)
    folder = shlex.quote(str(output))
    console.print(
        f"The next round starts from it: moehub tune-router {folder} --data FILE --update FILE",
        markup=False,
        soft_wrap=True,
    )
