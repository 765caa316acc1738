"""`moehub inspect`: what a folder is."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moehub import console
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.inspection import Report


@click.command("inspect")
@click.argument("path", metavar="PATH", type=click.Path(exists=True, file_okay=False, path_type=Path))
@options.as_json
@click.pass_context
def command(context: click.Context, *, path: Path, as_json: bool) -> None:
    """Say what the expert, MoE or base in PATH is, and check every digest.

    Exits with 1 where a file is not the one that was published.

    \b
    Example:
      moehub inspect law
      moehub inspect moe --json
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.inspection import inspect

    report = inspect(path)
    if as_json:
        click.echo(report.to_json(), nl=False)
    else:
        _show(report)
    for fault in report.faults:
        click.echo(f"Error: {fault}", err=True)
    context.exit(1 if report.faults else 0)


def _show(report: "Report") -> None:
    show = {"expert": _show_expert, "moe": _show_moe, "base": _show_base}[report.kind]
    click.echo(f"{report.kind}  {report.path}")
    show(report.facts)
    if report.kind != "base":
        click.echo("every digest verified" if not report.faults else f"{len(report.faults)} faults, see below")


def _show_expert(facts: Mapping[str, Any]) -> None:
    card, counted = facts["card"], facts["statistics"]
    _show_pairs(
        {
            "name": card["name"],
            "domain": card["domain"],
            "licence": card["license"],
            "version": card["version"],
            "base": _reference(card["base"]),
            "base digest": card["base"]["digest"],
            "purpose": card["purpose"],
            "method": card["method"],
            "rank, alpha": f"{card['rank']}, {card['alpha']:g}",
            "targets": ", ".join(card["targets"]),
            "stages": "; ".join(map(_stage, card["stages"])),
            "trained by": _contributors(card["federation"]),
            "held-out loss": _losses(card["metrics"]),
            "statistics": _counted(counted),
        }
    )
    rows = [
        [file["name"], f"{file['bytes']:,}", file["sha256"][:16], _MARKS[file["verified"]]] for file in facts["files"]
    ]
    _show_table(("file", "bytes", "sha256", "digest"), rows)


def _stage(stage: Mapping[str, Any]) -> str:
    measured = stage["measured"]
    said = f"{stage['kind']}: {stage['examples']:,} examples, {stage['tokens']:,} tokens"
    if measured is None:
        return said
    return f"{said}, {measured['metric']} {measured['before']:.4f} → {measured['after']:.4f}"


def _show_moe(facts: Mapping[str, Any]) -> None:
    router = facts["router"]
    _show_pairs(
        {
            "base": _reference(facts["base"]),
            "base is at": facts["base"].get("location"),
            "base digest": facts["base"].get("digest"),
            "null expert": "yes" if facts["null"] else "no: experts answer on any text",
            "top_k": router.get("top_k"),
            "router": ", ".join(f"{key} {value}" for key, value in sorted(router.items()) if key != "top_k"),
            "tuned": _tuning(facts["tuned"]),
            "bytes": f"{facts['bytes']:,}",
        }
    )
    sources = {entry["name"]: _source(entry) for entry in (facts["lock"] or {}).get("experts", ())}
    rows = [
        [
            one["name"],
            one.get("license", "-"),
            f"{one.get('bytes', 0):,}",
            sources.get(one["name"], "-"),
            str(one.get("card", "-"))[:12],
            _MARKS[one.get("verified", False)],
        ]
        for one in facts["experts"]
    ]
    _show_table(("expert", "licence", "bytes", "source", "card", "digest"), rows)


def _show_base(facts: Mapping[str, Any]) -> None:
    numbers = {key: f"{value:,}" if isinstance(value, int) else value for key, value in facts.items()}
    _show_pairs(numbers)


_MARKS = {True: "verified", False: "CHANGED", None: "not pinned"}


def _reference(base: Mapping[str, Any]) -> str:
    revision = base.get("revision")
    return f"{base.get('reference')}{f'@{revision}' if revision else ''}"


def _source(entry: Mapping[str, Any]) -> str:
    return f"{entry['source']}{'@' + entry['commit'][:12] if entry['commit'] else ''}"


def _contributors(federation: Mapping[str, Any] | None) -> str:
    if federation is None:
        return "one contributor"
    named = f" ({', '.join(federation['contributors'])})" if federation["contributors"] else ""
    epsilon = federation["epsilon"]
    private = f", ε = {epsilon:.3g} at δ = {federation['delta']:.3g}" if epsilon is not None else ""
    return (
        f"{federation['nodes']} contributors together{named}, {federation['rounds']} rounds, "
        f"{federation['aggregation']}{private}"
    )


def _tuning(tuned: Mapping[str, Any] | None) -> str:
    if tuned is None:
        return "no: the gate follows from counts, and experts go in and out exactly"
    facts = tuned["facts"]
    together = f" by {facts['contributors']} contributors" if facts["contributors"] > 1 else ""
    losses = (
        f", held-out loss {facts['loss_before']:.4f} → {facts['loss_after']:.4f}"
        if facts["loss_before"] is not None and facts["loss_after"] is not None
        else ""
    )
    numbers = ", ".join(f"{key} {value:.4g}" for key, value in sorted(tuned["numbers"].items()))
    return (
        f"yes, on {facts['tokens']:,} tokens{together}{losses}: no expert can be taken out exactly unless --untuned "
        f"drops it; {numbers}"
    )


def _losses(metrics: Mapping[str, Any] | None) -> str:
    if metrics is None:
        return "not measured"
    return f"{metrics['expert_loss']:.4f} nats per token, the base {metrics['base_loss']:.4f}"


def _counted(counted: Mapping[str, Any] | None) -> str:
    if counted is None:
        return "none: the evidence router cannot use this expert"
    suppressed = counted["suppressed_below"]
    return (
        f"{counted['tokens']:,} tokens, {counted['distinct_tokens']:,} of {counted['vocabulary']:,} distinct; "
        f"{counted['distinct_pair_buckets']:,} pair buckets of 2^{counted['pair_bits']}; "
        + _triples(counted)
        + (f"counts below {suppressed} suppressed" if suppressed else "nothing suppressed")
        + _noise(counted["private"])
    )


def _noise(private: Mapping[str, Any] | None) -> str:
    from moehub.card import Privacy

    return "" if private is None else f"; with noise, {Privacy(**private)}, the adapter without"


def _triples(counted: Mapping[str, Any]) -> str:
    if not counted["triple_bits"]:
        return "no triples; "
    return f"{counted['distinct_triple_buckets']:,} triple buckets of 2^{counted['triple_bits']}; "


def _show_pairs(pairs: Mapping[str, object]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs.items():
        table.add_row(name, Text(str(value)))
    console.results.print(table)


def _show_table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title == "bytes" else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.results.print(table)
