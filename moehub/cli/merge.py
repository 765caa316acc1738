"""`moehub merge`: many experts → one MoE; add one, remove one, make one again from its lock."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moehub import config
from moehub.cli import options
from moehub.console import console, results
from moehub.errors import ConfigError

if TYPE_CHECKING:
    from moehub.merge.merging import Recipe
    from moehub.merge.plan import Plan


@click.command(name="merge")
@click.argument("lock", required=False, type=click.Path(path_type=Path))
@click.option("--base", help="The experts' base: a folder, or org/name[@rev] on a hub.")
@click.option("--expert", "experts", multiple=True, help="An expert: a folder, or org/name[@rev]. Repeat it.")
@click.option("--output", type=click.Path(path_type=Path), help="The MoE's folder; it appears whole or not at all.")
@click.option("--recipe", type=click.Path(path_type=Path), help="YAML with base, experts, null, router, embed_base.")
@click.option("--null", help="Generic text, or statistics: where the base answers alone.")
@click.option("--top-k", type=int, help="Experts per token, at most. [default: 2]")
@click.option("--router", help="evidence, likelihood, lda or arrow; + joins them. [default: evidence]")
@click.option("--set", "assignments", multiple=True, help="A router setting, as kappa=0.4. Repeat it.")
@click.option("--embed-base", is_flag=True, help="Copy the base into the folder, so that it stands alone.")
@click.option("--into", type=click.Path(path_type=Path), help="Change the MoE in this folder.")
@click.option("--add", multiple=True, help="With --into: an expert to add. Repeat it.")
@click.option("--remove", multiple=True, help="With --into: the name of an expert to take out. Repeat it.")
@click.option("--untuned", is_flag=True, help="Drop what `moehub tune-router` made of the gate.")
@options.hub
@click.option(
    "--canary",
    type=click.Path(path_type=Path),
    help="Public text: refuse experts that make the base much worse on it.",
)
@click.option("--dry-run", is_flag=True, help="Check and show the plan; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def command(
    lock: Path | None,
    base: str | None,
    experts: tuple[str, ...],
    output: Path | None,
    recipe: Path | None,
    null: str | None,
    top_k: int | None,
    router: str | None,
    assignments: tuple[str, ...],
    embed_base: bool,
    into: Path | None,
    add: tuple[str, ...],
    remove: tuple[str, ...],
    untuned: bool,
    hub: str | None,
    canary: Path | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Assemble experts into one MoE, without training anything.

    Every expert passes the admission gate first (`moehub check` says what it looks at). A plan is shown, with
    everything that stands in the way. Adding and removing are exact: a MoE without
    an expert has the same bytes as one that never had it. A MoE whose gate was tuned is changed with --untuned only.

    \b
    Examples:
      moehub merge --base org/base --expert org/law --expert ./medicine --null prose.txt --output moe
      moehub merge --into moe --add org/code
      moehub merge --into moe --remove law
      moehub merge --into moe --untuned
      moehub merge moe/merge.lock --output again
    """  # noqa: D301
    from moehub.merge import merging

    changes = {"into": into, "add": add, "remove": remove, "untuned": untuned and lock is None}
    _refuse_mixtures(lock=lock, base=base, experts=experts, recipe=recipe, **changes)
    if into is not None:
        with merging.prepare_change(into, add=add, remove=remove, hub=hub, canary=canary, untuned=untuned) as change:
            _show(change.plan, as_json=as_json)
            _finish(change.plan, change.write, into, dry_run=dry_run)
        return
    if output is None:
        raise click.UsageError("--output is missing: name the folder that the MoE is to be written to")
    if lock is not None:
        prepared = merging.prepare_again(lock, hub=hub, canary=canary, untuned=untuned)
    else:
        asked = _recipe(recipe, base, experts, null, top_k, router, assignments, embed_base)
        asked = dataclasses.replace(asked, canary=canary or asked.canary)
        top_k_asked = top_k is not None or any(one.startswith("top_k=") for one in assignments)
        prepared = merging.prepare(asked, hub=hub, top_k_was_asked_for=top_k_asked)
    with prepared as ready:
        _show(ready.plan, as_json=as_json)
        _finish(ready.plan, lambda: ready.write(output), output, dry_run=dry_run)


def _refuse_mixtures(**given: object) -> None:
    """Say which way of merging was meant, where the options belong to several."""
    present = {name for name, value in given.items() if value}
    changing, making = present & {"into", "add", "remove", "untuned"}, present & {"base", "experts", "recipe"}
    if "lock" in present and (changing or making):
        raise click.UsageError("a merge.lock already says everything: give --output, and nothing else, beside it")
    if changing and making:
        raise click.UsageError("--into changes a MoE and --base/--expert/--recipe make one: give one or the other")
    if changing and ("into" not in present or len(changing) == 1):
        raise click.UsageError(
            "changing a MoE takes --into FOLDER and at least one --add REF or --remove NAME, or --untuned"
        )
    if not present:
        raise click.UsageError("nothing to merge: give --base and --expert, or --into, or a merge.lock")


def _recipe(
    file: Path | None,
    base: str | None,
    experts: tuple[str, ...],
    null: str | None,
    top_k: int | None,
    router: str | None,
    assignments: tuple[str, ...],
    embed_base: bool,
) -> "Recipe":
    """Return the recipe of the file, with what the command line says in its place."""
    from moehub.merge.merging import Recipe, read_recipe

    recipe = read_recipe(file) if file is not None else Recipe()
    changes: dict[str, object] = {}
    if top_k is not None:
        changes["top_k"] = top_k
    if router is not None:
        changes["method"] = router
    settings = dataclasses.asdict(recipe.router) | config.assigned(assignments) | changes
    recipe = dataclasses.replace(
        recipe,
        base=base or recipe.base,
        experts=(*recipe.experts, *experts),
        null=null or recipe.null,
        router=config.from_mapping(type(recipe.router), settings, source="--set"),
        embed_base=embed_base or recipe.embed_base,
    )
    if not recipe.base:
        raise ConfigError("the base is missing: name it with --base, or in the recipe")
    return recipe


def _show(plan: "Plan", *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_as_dict(plan), indent=2))
        return
    from rich.table import Table

    table = Table(title=f"base {plan.base.pin.reference} · router {plan.settings.method} · top {plan.settings.top_k}")
    for column in ("expert", "domain", "rank", "MB", "licence", "from"):
        table.add_column(column, justify="right" if column in ("rank", "MB") else "left", overflow="fold")
    for source in plan.sources:
        card, folder = source.expert.card, source.expert.folder
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) / 1e6
        origin = source.reference if source.commit is None else f"{source.reference}@{source.commit[:8]}"
        table.add_row(card.name, card.domain, str(card.rank), f"{size:.1f}", card.license, origin)
    if plan.null is not None:
        table.add_row("null", "generic text", "", "", "", plan.null.source)
    results.print(table)
    for note in plan.notes:
        console.print(f"note: {note}", markup=False)


def _as_dict(plan: "Plan") -> dict[str, object]:
    return {
        "base": dataclasses.asdict(plan.base.pin),
        "experts": [
            {"name": source.expert.name, "source": source.reference, "commit": source.commit} for source in plan.sources
        ],
        "null": None if plan.null is None else plan.null.source,
        "router": plan.settings.to_dict(),
        "faults": list(plan.faults),
        "notes": list(plan.notes),
    }


def _finish(plan: "Plan", write: Callable[[], None], folder: Path, *, dry_run: bool) -> None:
    plan.require()
    if dry_run:
        console.print("dry run: nothing was written")
        return
    write()
    console.print(f"{len(plan.sources)} experts in {folder}. Try: moehub generate {folder} --trace", markup=False)
