"""`moehub check`: what the admission gate says about an expert."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import files
from moehub.cli import options

if TYPE_CHECKING:
    from moehub.admission.verdict import Verdict

_FILE = click.Path(path_type=Path)


@click.command("check")
@click.argument("reference", metavar="REF")
@click.option("--base", help="The base that it should belong to: a folder, or org/name[@rev] on a hub.")
@click.option("--canary", type=_FILE, metavar="FILE", help="Public text that it should not make the base worse on.")
@click.option("--domain-text", type=_FILE, metavar="FILE", help="Text of its domain that it should gain on.")
@click.option("--null", metavar="TEXT|FOLDER", help="Generic text, or statistics: what it should leave to the base.")
@click.option("--beside", type=_FILE, metavar="MOE", help="The MoE that it is to stand in.")
@options.hub
@options.as_json
def command(
    reference: str,
    base: str | None,
    canary: Path | None,
    domain_text: Path | None,
    null: str | None,
    beside: Path | None,
    hub: str | None,
    as_json: bool,
) -> None:
    """Say what the admission gate finds in an expert: REF is its folder, or org/name[@rev] on a hub.

    The steps go from cheap to costly, and each is made only if those before it found nothing. What a check needs and
    is not given is said. Nothing of the expert is executed. A refusal ends with exit code 1. An admitted expert is
    well-formed and fits; no check can tell that it has no hidden behaviour.

    \b
    Example:
      moehub check law
      moehub check acme/law --base org/base --canary prose.txt --null prose.txt
      moehub check acme/law --beside moe --json
    """  # noqa: D301 (\b is click's mark for text that is not to be wrapped)
    from moehub.merge.examination import Surroundings, examine_reference

    surroundings = Surroundings(base, canary, domain_text, null, beside)
    verdict = examine_reference(reference, surroundings, hub=hub)
    if as_json:
        click.echo(files.to_json(verdict.to_dict()), nl=False)
    else:
        _show(verdict)
    verdict.require()


def _show(verdict: "Verdict") -> None:
    from rich.table import Table
    from rich.text import Text

    from moehub.admission.registry import registered
    from moehub.console import results

    table = Table(box=None, pad_edge=False)
    for title in ("step", "check", "ms", "result"):
        table.add_column(title, justify="right" if title in ("step", "ms") else "left", overflow="fold")
    reasons = {one.code: one.reason for one in verdict.skipped}
    refused = {refusal.code for refusal in verdict.refusals}
    reached = [check for check in registered() if check.code in verdict.seconds or check.code in reasons]
    for check in reached:
        if check.code in reasons:
            table.add_row(str(check.step), check.code, "", Text(f"not made: {reasons[check.code]}", style="dim"))
            continue
        result = Text("REFUSED", style="bold red") if check.code in refused else Text("passed", style="green")
        table.add_row(str(check.step), check.code, f"{verdict.seconds[check.code] * 1e3:.1f}", result)
    results.print(table)
    if verdict.admitted:
        results.print(Text(f"{verdict.subject} is admitted"))
    else:
        left = len(registered()) - len(reached)
        results.print(Text(f"{verdict.subject} is REFUSED; {left} checks of later steps were not reached"))
