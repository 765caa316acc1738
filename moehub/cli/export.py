"""`moehub export`: a MoE → Mixtral, one dense model, PEFT adapters or GGUF, with a report of what arrived."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moehub.cli import named
from moehub.console import console, results

if TYPE_CHECKING:
    from rich.table import Table

    from moehub.merge.exporting.exporting import Report
    from moehub.merge.exporting.parity import Parity
    from moehub.merge.exporting.planned import Planned, Target

_FORMATS = ("mixtral", "peft", "dense", "gguf")
_BELONG = {
    "expert": {"dense", "gguf"},
    "top_k": {"mixtral", "gguf"},
    "attention": {"mixtral", "gguf"},
    "gate_texts": {"mixtral", "gguf"},
    "mixture": {"peft"},
    "method": {"peft"},
    "density": {"peft"},
    "llama_cpp": {"gguf"},
    "outtype": {"gguf"},
    "dtype": {"mixtral", "dense", "gguf"},
}
"""Option → the formats that it belongs to."""
_NAMES = {"gate_texts": "--gate-text"}


@click.command(name="export")
@click.argument("moe")
@click.option("--format", "form", type=click.Choice(_FORMATS), required=True, help="What to make of it.")
@click.option("--output", type=click.Path(path_type=Path), required=True, help="A folder that is not there yet.")
@click.option("--expert", help="dense, gguf: the expert to fold into the base.")
@click.option("--top-k", type=int, help="mixtral, gguf: experts per token.  [default: the MoE's]")
@click.option(
    "--attention",
    type=click.Choice(("refuse", "average", "drop")),
    help="mixtral, gguf: what becomes of experts' changes to attention, which all share.  [default: refuse]",
)
@click.option(
    "--gate-text", "gate_texts", multiple=True, help="mixtral, gguf: NAME=FILE, text of an expert or null. Repeat it."
)
@click.option("--mixture", help="peft: one adapter of several, as law=0.6,code=0.4.")
@click.option("--method", help="peft: how PEFT mixes: linear, cat, svd, ties, dare_ties, …  [default: linear]")
@click.option("--density", type=float, help="peft: share of the numbers that ties, dare and magnitude_prune keep.")
@click.option("--llama-cpp", type=click.Path(path_type=Path), help="gguf: a checkout of llama.cpp.")
@click.option("--outtype", help="gguf: f32, f16, bf16, q8_0 or auto.  [default: auto]")
@click.option(
    "--dtype",
    type=click.Choice(("float32", "bfloat16", "float16")),
    help="mixtral, dense, gguf: type of the weights.  [default: the base's]",
)
@click.option("--base", help="Where the base is, if not where the MoE says.")
@click.option("--data", multiple=True, help="NAME=FILE: text to compare both on. Repeat it.")
@click.option("--no-parity", is_flag=True, help="Do not compare: that needs both models in memory, in float32.")
@click.option("--dry-run", is_flag=True, help="Say what would be written; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def command(
    moe: str,
    form: str,
    output: Path,
    base: str | None,
    data: tuple[str, ...],
    no_parity: bool,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Export MOE to a format of others, and report how much of it arrived.

    \b
    mixtral  every expert's FFN folded, a gate in each layer made of --gate-text
    peft     each expert as it is, or one adapter mixed by PEFT with --mixture
    dense    the base with one --expert folded in
    gguf     mixtral, or dense with --expert, through the converter in --llama-cpp

    The report (logits, greedy agreement, perplexity on --data, and what could not be carried)
    goes into the card of what was exported.

    \b
    Examples:
      moehub export moe --format mixtral --gate-text law=law.txt --gate-text null=prose.txt --output out
      moehub export moe --format dense --expert law --data law=law.test.jsonl --output law-7b
      moehub export moe --format peft --mixture law=0.6,code=0.4 --method ties --density 0.5 --output mix
    """  # noqa: D301
    _refuse_strangers(form, settings)
    texts = named.read("--data", data, "law=law.txt")
    target = _target(form, settings)
    from moehub.merge.exporting import exporting

    prepared = exporting.prepare(moe, target, base=base, texts=texts)
    if dry_run:
        exporting.require_room(output, prepared.planned.size)
        _show_plan(prepared.planned, as_json=as_json)
        console.print("dry run: nothing was written")
        return
    report = exporting.export(prepared, output, with_parity=not no_parity)
    if as_json:
        click.echo(json.dumps(_as_dict(report), indent=2))
    else:
        _show(report, own_prompts=not texts)
    console.print(f"{report.planned.kind} in {output}", markup=False, soft_wrap=True)


def _refuse_strangers(form: str, settings: Mapping[str, Any]) -> None:
    """Refuse options that say nothing about this format, and ask for those that it needs."""
    strange = [name for name, value in settings.items() if value not in (None, ()) and form not in _BELONG[name]]
    if strange:
        option, fit = _option(strange[0]), " and ".join(sorted(_BELONG[strange[0]]))
        raise click.UsageError(f"{option} belongs to --format {fit}, and this is {form}: leave it out")
    if form == "dense" and settings["expert"] is None:
        raise click.UsageError("--format dense folds one expert: name it with --expert")
    if form == "gguf" and settings["llama_cpp"] is None:
        raise click.UsageError("--format gguf needs the converter of a checkout of llama.cpp: name it with --llama-cpp")
    if form == "gguf" and settings["expert"] is not None:
        mixed = [_option(name) for name in ("top_k", "attention", "gate_texts") if settings[name] not in (None, ())]
        if mixed:
            raise click.UsageError(f"--expert makes a dense model, which has no {mixed[0]}: leave one of them out")
    if settings["mixture"] is None and (settings["method"] is not None or settings["density"] is not None):
        raise click.UsageError("--method and --density say how to mix: name what with --mixture law=0.6,code=0.4")


def _option(name: str) -> str:
    return _NAMES.get(name, "--" + name.replace("_", "-"))


def _target(form: str, settings: Mapping[str, Any]) -> "Target":
    import torch

    from moehub.merge.exporting.adapters import Experts, Mixture
    from moehub.merge.exporting.dense import Dense
    from moehub.merge.exporting.gguf import Gguf
    from moehub.merge.exporting.mixtral import Mixtral

    if form == "peft":
        if settings["mixture"] is None:
            return Experts()
        return Mixture(_mixture(settings["mixture"]), settings["method"] or "linear", settings["density"])
    dtype = None if settings["dtype"] is None else getattr(torch, settings["dtype"])
    if settings["expert"] is not None:
        inner: Mixtral | Dense = Dense(settings["expert"], dtype)
    else:
        texts = named.read("--gate-text", settings["gate_texts"], "law=law.txt")
        inner = Mixtral(settings["top_k"], settings["attention"] or "refuse", texts, dtype)
    return inner if form != "gguf" else Gguf(inner, settings["llama_cpp"], settings["outtype"] or "auto")


def _mixture(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for one in text.split(","):
        name, _, weight = one.partition("=")
        try:
            number = float(weight)
        except ValueError:
            raise click.UsageError(f"--mixture {text!r} is no list of NAME=WEIGHT, as in law=0.6,code=0.4") from None
        if name.strip() in weights:
            raise click.UsageError(f"--mixture {text!r} names {name.strip()} twice: name each once")
        weights[name.strip()] = number
    return weights


def _as_dict(report: "Report") -> dict[str, object]:
    parity = report.parity
    return {
        **_plan_as_dict(report.planned),
        "notes": list(report.notes),
        "parity": None if parity is None else [dataclasses.asdict(one) for one in parity],
    }


def _plan_as_dict(planned: "Planned") -> dict[str, object]:
    return {
        "kind": planned.kind,
        "experts": list(planned.experts),
        "bytes": planned.size,
        "files": list(planned.files),
        "lost": list(planned.lost),
        "notes": list(planned.notes),
    }


def _show_plan(planned: "Planned", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_plan_as_dict(planned), indent=2))
        return
    results.print(f"{planned.kind}: {planned.size:,} bytes in {', '.join(planned.files)}", markup=False)
    _say("not carried", planned.lost)
    _say("note", planned.notes)


def _show(report: "Report", *, own_prompts: bool) -> None:
    if report.parity is not None:
        results.print(_agreement(report.parity, own_prompts=own_prompts))
        if any(one.perplexities for one in report.parity):
            results.print(_perplexities(report.parity))
    _say("not carried", report.planned.lost)
    _say("note", report.notes)


def _say(what: str, sentences: tuple[str, ...]) -> None:
    for sentence in sentences:
        results.print(f"{what}: {sentence}", markup=False)


def _agreement(parity: "list[Parity]", *, own_prompts: bool) -> "Table":
    from rich.table import Table

    whose = "that the base wrote itself" if own_prompts else "from --data"
    table = Table(title=f"parity with the MoE on {parity[0].prompts} prompts {whose}")
    for number, column in enumerate(("", "MoE sent to", "Δ logit, max", "mean", "next token", "greedy")):
        table.add_column(column, justify="right" if number > 1 else "left", overflow="fold")
    for one in parity:
        shares = (f"{one.next_token:.1%}", f"{one.continuations:.1%}")
        table.add_row(one.name, one.forced or "its gate", f"{one.largest:.2e}", f"{one.mean:.2e}", *shares)
    return table


def _perplexities(parity: "list[Parity]") -> "Table":
    from rich.table import Table

    table = Table(title="perplexity")
    for number, column in enumerate(("", "text", "MoE", "exported", "tokens")):
        table.add_column(column, justify="right" if number > 1 else "left", overflow="fold")
    for one in parity:
        for text, both in one.perplexities.items():
            table.add_row(one.name, text, f"{both.moe:.3f}", f"{both.exported:.3f}", f"{both.tokens:,}")
    return table
