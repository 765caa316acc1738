"""`moehub train-expert`: a LoRA expert for one domain, from one's own text, through any stage of training."""

import dataclasses
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from moehub import config, files
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.base import Base
    from moehub.card import Measured
    from moehub.experts.folder import Expert
    from moehub.experts.preview import Preview
    from moehub.experts.rewards import Opener


@click.command("train-expert")
@click.option("--base", "reference", required=True, help="The base: a folder, or org/name[@rev] on a hub.")
@click.option("--domain", required=True, help="What the text is about, as in law: lower-case letters, digits, - _ .")
@click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Text: .txt, .jsonl, .json or .parquet; - is standard input. Repeat it for several files.",
)
@click.option(
    "--stage",
    type=click.Choice(["pretrain", "sft", "dpo", "kto", "reward", "rl"]),
    help="What is learned from the data. [default: pretrain for documents alone, else sft]",
)
@click.option("--from", "start", metavar="EXPERT", help="Start from the adapter of the expert in this folder.")
@click.option(
    "--method",
    type=click.Choice(["lora", "rslora", "dora", "prefix", "p-tuning", "ia3"]),
    help="The kind of adapter; the last three are for use alone. [default: lora]",
)
@click.option("--quantize", type=click.Choice(["nf4", "int8"]), help="Hold the base in 4 or 8 bits while training.")
@click.option(
    "--reward",
    "reward_options",
    multiple=True,
    metavar="NAME[=WEIGHT]",
    help="For rl: what answers are rewarded for, as exact or unit-tests=2. Repeat it; docs/rewards.md has all.",
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
    stage: str | None,
    start: str | None,
    method: str | None,
    quantize: str | None,
    reward_options: tuple[str, ...],
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
    whole. A share of the examples is held out and measured on. The folder appears once the expert is finished;
    until then checkpoints are kept beside it, in OUTPUT.training.

    An expert may go through several stages, each from where the last one ended (--from): more text (pretrain, sft),
    preferences (dpo, kto: prompt, chosen, rejected), a reward model (reward), and reinforcement (rl: prompts, and
    --reward). A YAML file with `stages:` runs them in one go; docs/training.md has its form.

    \b
    Example:
      moehub train-expert --base org/base --domain law --data law.jsonl --output law
      moehub train-expert --base org/base --domain law --data law.jsonl --output law --resume
      moehub train-expert --base org/base --domain law --data law.jsonl --output law --private 3
      moehub train-expert --base org/base --domain law --stage dpo --from law --data better.jsonl --output law-2
      moehub train-expert --base org/base --domain math --stage rl --from math --data sums.jsonl --reward exact \\
        --output math-2
      moehub train-expert --base org/base --domain law --config stages.yaml --output law
      zcat law.txt.gz | moehub train-expert --base org/base --domain law --data - --output law --set rank=8
      accelerate launch -m moehub train-expert --base org/base --domain law --data law.jsonl --output law
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    values = {} if settings is None else config.read_yaml(settings)
    own = {"private": private, "method": method, "quantize": quantize}
    given = config.assigned(assignments) | {key: value for key, value in own.items() if value is not None}
    if reward_options:
        given["rewards"] = dict(map(_reward, reward_options))
    if "stages" in values:
        _refuse_beside_stages(sources, stage, dry_run=dry_run)
    elif not sources:
        raise click.UsageError("--data is missing: name text to train on, or stages in --config")
    from moehub import base as bases
    from moehub.experts import chain
    from moehub.experts.loop import first_process
    from moehub.experts.preview import preview
    from moehub.experts.stages import kinds
    from moehub.experts.training import train

    started = time.monotonic()
    if "stages" in values and settings is not None:
        links = chain.read({**values, **given}, folder=settings.parent, source=str(settings))
        base = bases.find(reference)
        common = _Common(name=name, start=_start(start), opener=_opener(base), overwrite=overwrite)
        expert = chain.train_all(base, domain, links, output, resume=resume, **common)
    else:
        kind = kinds.find(stage or kinds.AUTO)
        chosen = config.from_mapping(kind.config, {**values, **given}, source=str(settings or "--set"))
        examples = kind.read(sources)
        base = bases.find(reference)
        common = _Common(name=name, start=_start(start), opener=_opener(base), overwrite=overwrite)
        if dry_run:
            planned = preview(base, domain, examples, output, chosen, stage=kind.name, **common)
            _show_preview(planned, as_json=as_json)
            return
        expert = train(base, domain, examples, output, chosen, stage=kind.name, resume=resume, **common)
    if first_process():
        _show_expert(expert, time.monotonic() - started, as_json=as_json)


class _Common(TypedDict):
    """What a stage, its preview and a chain are given alike."""

    name: str | None
    start: "Expert | None"
    opener: "Opener"
    overwrite: bool


def _reward(option: str) -> tuple[str, float]:
    name, equals, weight = option.partition("=")
    try:
        return name, float(weight) if equals else 1.0
    except ValueError:
        raise click.UsageError(f"--reward {option!r}: expected a name, or a name and a number as exact=0.5") from None


def _refuse_beside_stages(sources: Sequence[Path], stage: str | None, *, dry_run: bool) -> None:
    if sources or stage is not None or dry_run:
        raise click.UsageError("--data, --stage and --dry-run are of one stage, and --config names several: drop them")


def _start(reference: str | None) -> "Expert | None":
    """Return the expert that the training starts from."""
    if reference is None:
        return None
    from moehub.experts.folder import open_expert

    folder = Path(reference).expanduser()
    if not folder.is_dir():
        raise click.UsageError(f"--from {reference!r} is no folder: fetch the expert with `moehub pull` and name that")
    return open_expert(folder)


def _opener(base: "Base") -> "Opener":
    """Return what opens the models that rewards ask."""
    from moehub.openers import Openers

    return Openers(base)


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

    from moehub.card import EXPERT
    from moehub.console import console, results

    card = expert.card
    table = Table(title=f"{card.purpose} {card.name} on {card.base.reference}", show_header=False)
    if card.metrics is not None:
        table.add_row(
            f"held-out loss of the base, over {card.metrics.tokens:,} tokens", f"{card.metrics.base_loss:.4f}"
        )
        table.add_row("held-out loss of the expert", f"{card.metrics.expert_loss:.4f}")
    for stage in card.stages:
        if stage.measured is not None:
            table.add_row(f"{stage.kind}: held-out {stage.measured.metric}", _change(stage.measured))
    if card.private is not None:
        table.add_row("router counts, with noise", str(card.private))
        table.add_row("adapter", "without noise: what it learned is not private")
    table.add_row("tokens learned", f"{sum(stage.tokens for stage in card.stages):,}")
    table.add_row("seconds", f"{seconds:.1f}")
    table.add_row("folder", str(expert.folder))
    results.print(table)
    if card.purpose != EXPERT:
        return
    console.print(
        f"Publish it: moehub push {shlex.quote(str(expert.folder))} YOUR-NAME/{card.name}", markup=False, soft_wrap=True
    )


def _change(measured: "Measured") -> str:
    kl = "" if measured.kl is None else f", {measured.kl:.4f} nats/token from its start"
    return f"{measured.before:.4f} → {measured.after:.4f}{kl}"
