"""`moehub train-expert`: a LoRA expert for one domain, from one's own text."""

import dataclasses
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import config, files
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.experts.folder import Expert
    from moehub.experts.preview import Preview


@click.command("train-expert")
@click.option("--base", "reference", required=True, help="The base: a folder, or org/name[@rev] on a hub.")
@click.option("--domain", required=True, help="What the text is about, as in law: lower-case letters, digits, - _ .")
@click.option(
    "--data",
    "sources",
    required=True,
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Text: .txt, .jsonl, .json or .parquet; - is standard input. Repeat it for several files.",
)
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The expert's folder.")
@click.option("--name", help="The expert's name. [default: the domain]")
@click.option("--config", "settings", type=click.Path(path_type=Path), help="Settings: a YAML file of `key: value`.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="One setting, as rank=8; an unknown KEY lists all. Repeat it.",
)
@click.option(
    "--private",
    type=float,
    metavar="EPS",
    help="Publish counts with noise that hides any one example, to this ε. The adapter stays as it is.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint of an interrupted training.")
@click.option("--overwrite", is_flag=True, help="Replace the expert in the folder, once the new one is finished.")
@click.option("--dry-run", is_flag=True, help="Read and count everything, train nothing.")
@options.as_json
def command(
    *,
    reference: str,
    domain: str,
    sources: tuple[Path, ...],
    output: Path,
    name: str | None,
    settings: Path | None,
    assignments: tuple[str, ...],
    private: float | None,
    resume: bool,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Train a LoRA expert for one domain on your own text; the text stays on this machine.

    Records may be documents (text), questions and answers (instruction, input, output), prompts and completions
    (prompt, completion), or conversations (messages); only answers and completions are learned, and documents as a
    whole. A twentieth of the examples is held out and measured on. The folder appears once the expert is finished;
    until then checkpoints are kept beside it, in OUTPUT.training.

    \b
    Example:
      moehub train-expert --base org/base --domain law --data law.jsonl --output law
      moehub train-expert --base org/base --domain law --data law.jsonl --output law --resume
      moehub train-expert --base org/base --domain law --data law.jsonl --output law --private 3
      zcat law.txt.gz | moehub train-expert --base org/base --domain law --data - --output law --set rank=8
      accelerate launch -m moehub train-expert --base org/base --domain law --data law.jsonl --output law
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.experts.settings import TrainConfig

    noise = () if private is None else (f"private={private}",)
    chosen = config.load(TrainConfig, settings, [*assignments, *noise])
    from moehub import base as bases
    from moehub.experts import data
    from moehub.experts.loop import first_process
    from moehub.experts.preview import preview
    from moehub.experts.training import train

    examples = data.read(sources)
    base = bases.find(reference)
    if dry_run:
        _show_preview(preview(base, domain, examples, output, chosen, name=name, overwrite=overwrite), as_json=as_json)
        return
    started = time.monotonic()
    expert = train(base, domain, examples, output, chosen, name=name, resume=resume, overwrite=overwrite)
    if first_process():
        _show_expert(expert, time.monotonic() - started, as_json=as_json)


def _show_preview(planned: "Preview", *, as_json: bool) -> None:
    if as_json:
        click.echo(files.to_json(dataclasses.asdict(planned)), nl=False)
        return
    click.echo(
        f"would train on {planned.examples:,} examples ({planned.tokens:,} tokens to learn) in {planned.rows:,} rows "
        f"of {planned.context_length} tokens, {planned.steps:,} steps, and measure on {planned.held_out:,} examples "
        f"({planned.held_out_tokens:,} tokens); {planned.left_out} are longer than the context"
    )


def _show_expert(expert: "Expert", seconds: float, *, as_json: bool) -> None:
    if as_json:
        result = {"folder": str(expert.folder), "seconds": round(seconds, 3), "card": dataclasses.asdict(expert.card)}
        click.echo(files.to_json(result), nl=False)
        return
    from rich.table import Table

    from moehub.console import console, results

    card = expert.card
    table = Table(title=f"expert {card.name} on {card.base.reference}", show_header=False)
    if card.metrics is not None:
        table.add_row(
            f"held-out loss of the base, over {card.metrics.tokens:,} tokens", f"{card.metrics.base_loss:.4f}"
        )
        table.add_row("held-out loss of the expert", f"{card.metrics.expert_loss:.4f}")
    if card.private is not None:
        table.add_row("router counts, with noise", str(card.private))
        table.add_row("adapter", "without noise: what it learned is not private")
    table.add_row("tokens learned", f"{sum(stage.tokens for stage in card.stages):,}")
    table.add_row("seconds", f"{seconds:.1f}")
    table.add_row("folder", str(expert.folder))
    results.print(table)
    console.print(
        f"Publish it: moehub push {shlex.quote(str(expert.folder))} YOUR-NAME/{card.name}", markup=False, soft_wrap=True
    )
