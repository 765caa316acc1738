"""`moehub data synth`: text to learn from that a model writes."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from moehub.cli import answerers, options, place
from moehub.cli.data import arguments
from moehub.console import console, progress, results

if TYPE_CHECKING:
    from moehub.corpus.synth.making import Made, Making
    from moehub.corpus.synth.methods import Name


@click.command("synth")
@click.option(
    "--method",
    required=True,
    type=click.Choice(["self-instruct", "evol-instruct", "rewrite", "explain"]),
    help="New tasks after examples; harder ones; the same in other words; answers with their reasons.",
)
@click.option(
    "--seeds",
    metavar="FILE",
    multiple=True,
    required=True,
    type=arguments.IN,
    help="Tasks, with or without answers; of rewrite documents too. Repeat it for more.",
)
@click.option(
    "--model",
    metavar="REF",
    required=True,
    help="Who writes: a base, an expert, a MoE or http://host/v1#model.",
)
@click.option("--output", metavar="FILE", type=arguments.FILE, help="JSON lines; a work that was killed goes on.")
@click.option("-n", "--records", "count", required=True, type=click.IntRange(min=1), help="Records that are wanted.")
@click.option(
    "--threshold",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Share of word trigrams in common from which on a text counts as said before.  "
    "[default: 0.7; of evol-instruct 0.9]",
)
@answerers.writing
@click.option("--overwrite", is_flag=True, help="Replace the file at --output, once the new one is finished.")
@answerers.asking
@click.option("--dry-run", is_flag=True, help="Read the seeds and show the first request, ask nothing.")
@options.as_json
def command(
    *,
    method: str,
    seeds: tuple[Path, ...],
    model: str,
    output: Path | None,
    count: int,
    threshold: float | None,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    overwrite: bool,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Have a model write records to learn from, beginning with seeds.

    What is empty, cut off, refused, repetitive or near to what is there already is left out, and counted. Every record
    says in `made` by which model and method, and from which seeds, it was made. Ask who made the model whether its
    answers may be learned from.

    \b
    Examples:
      moehub data synth --method self-instruct --seeds tasks.jsonl --model moe --output new.jsonl -n 500
      moehub data synth --method rewrite --seeds law.txt --model http://127.0.0.1:8000/v1#it --output law2.jsonl -n 99
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.answering.answerer import Sampling
    from moehub.corpus.synth import making
    from moehub.corpus.synth import seeds as reading

    way = answerers.access(**given)
    path = None if dry_run else place.new(output, overwrite=overwrite)
    plan = making.Plan(
        cast("Name", method), model, count, Sampling(max_new_tokens, temperature, top_p), threshold=threshold, seed=seed
    )
    begun = reading.read(seeds)
    work = making.Making(plan, begun, path and place.partial(path))
    if path is None:
        _show_request(work, len(begun), count)
        return
    from moehub import files, ledger
    from moehub.judging import opening

    with progress(method, count) as advance:
        made = work.run(lambda reference: opening.open_answerer(reference, way), advance)
    files.write_text(path, "".join(map(ledger.line, made.records)))
    work.ledger.remove()
    _show(made, path, model, as_json=as_json)


def _show_request(work: "Making", seeds: int, count: int) -> None:
    click.echo(f"would ask {work.plan.model} for {count:,} records from {seeds:,} seeds, and at first this:\n")
    request = work.first_request()
    click.echo(request if isinstance(request, str) else "\n\n".join(one.content for one in request))


def _show(made: "Made", path: Path, model: str, *, as_json: bool) -> None:
    if as_json:
        report = {
            "output": str(path),
            "records": len(made.records),
            "attempts": made.attempts,
            "left_out": dict(made.left_out),
            "asked": None if made.meter is None else made.meter.to_dict(),
        }
        click.echo(json.dumps(report, indent=2, ensure_ascii=False))
        return
    left = ", ".join(f"{count:,} {reason}" for reason, count in made.left_out.items()) or "nothing"
    results.print(
        f"{len(made.records):,} records in {path}, of {made.attempts:,} attempts; left out: {left}",
        markup=False,
        soft_wrap=True,
    )
    if made.meter is not None:
        console.print(answerers.cost(model, made.meter), markup=False, soft_wrap=True)
