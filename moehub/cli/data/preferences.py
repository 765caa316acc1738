"""`moehub data preferences`: pairs of answers of which a judge prefers one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moehub.cli import answerers, options, place
from moehub.cli.data import arguments
from moehub.console import console, progress, results

if TYPE_CHECKING:
    from moehub.corpus.synth.preferences import Preferred


@click.command("preferences")
@click.option(
    "--data",
    "sources",
    metavar="FILE",
    multiple=True,
    required=True,
    type=arguments.IN,
    help="The prompts. Repeat it for more.",
)
@click.option(
    "--model",
    metavar="REF",
    required=True,
    help="Who answers: a base, an expert, a MoE or http://host/v1#model.",
)
@click.option("--model2", metavar="REF", help="Who writes the second answer.  [default: the same model]")
@click.option("--judge", metavar="REF", required=True, help="Who compares the two answers.")
@click.option("--question", help="What makes an answer good.  [default: the judge's own opinion]")
@click.option("--output", metavar="FILE", type=arguments.FILE, help="JSON lines; a work that was killed goes on.")
@answerers.writing
@click.option("--overwrite", is_flag=True, help="Replace the file at --output, once the new one is finished.")
@answerers.judging
@click.option("--dry-run", is_flag=True, help="Read the prompts and say how much would be asked, ask nothing.")
@options.as_json
def command(
    *,
    sources: tuple[Path, ...],
    model: str,
    model2: str | None,
    judge: str,
    question: str | None,
    output: Path | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Have two answers written to each prompt, and keep which one a judge prefers.

    The judge sees the two in both orders; where it does not prefer the same one both times, the pair is left out as a
    tie, and counted. The file is one for `moehub train-expert` to learn preferences from.

    \b
    Examples:
      moehub data preferences --data prompts.jsonl --model moe --judge org/judge --output prefs.jsonl
      moehub data preferences --data prompts.jsonl --model moe --model2 base --judge org/judge --output prefs.jsonl
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.answering.answerer import Sampling
    from moehub.corpus.synth import preferences
    from moehub.experts import data
    from moehub.judging import arena

    way = answerers.access(**given)
    path = None if dry_run else place.new(output, overwrite=overwrite)
    sampling = Sampling(max_new_tokens, temperature, top_p)
    plan = preferences.Plan((model, model2 or model), judge, sampling, question=question, seed=seed)
    tasks = arena.unique(data.read_tasks(sources))
    work = preferences.Preferring(plan, tasks, path and place.partial(path))
    if path is None:
        click.echo(f"would ask for {2 * len(tasks):,} answers and compare {len(tasks):,} pairs in both orders")
        return
    from moehub import files, ledger
    from moehub.judging import opening

    with progress("preferences", work.steps) as advance:
        found = work.run(lambda reference: opening.open_answerer(reference, way), advance)
    files.write_text(path, "".join(map(ledger.line, found.records)))
    work.ledger.remove()
    _show(found, path, as_json=as_json)


def _show(found: "Preferred", path: Path, *, as_json: bool) -> None:
    position = None if found.bias is None else found.bias.to_dict()
    if as_json:
        report = {
            "output": str(path),
            "records": len(found.records),
            "ties": found.ties,
            "equal": found.equal,
            "position": position,
            "asked": {name: meter.to_dict() for name, meter in found.meters.items()},
        }
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    results.print(
        f"{len(found.records):,} pairs in {path}; left out: {found.ties:,} ties, {found.equal:,} of equal answers",
        markup=False,
        soft_wrap=True,
    )
    if position is not None:
        results.print(
            f"The judge prefers what stands first by {position['towards_first']:+.3f}, and in "
            f"{100 * position['decided']:.1f} % of the pairs the place decided: these are ties.",
            markup=False,
        )
    for name, meter in found.meters.items():
        console.print(answerers.cost(name, meter), markup=False, soft_wrap=True)
