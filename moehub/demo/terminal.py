"""The demo's findings on a terminal, 80 columns wide."""

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from moehub.demo.report import Report, expert_names, joined, shades
from moehub.demo.road import Demonstration
from moehub.router.method import NULL

_ENOUGH = 90.0
_LITTLE = 1.0


def show(shown: Demonstration, console: Console) -> None:
    """Print the tables, the coloured passage and where to find the rest."""
    report = shown.report
    console.print()
    console.print(loss_table(report))
    console.print(_verdicts(report))
    console.print(routing_table(report))
    console.print(passage(shown))
    console.print(f"\nEverything is in {shown.place.folder}; look at {shown.place.html}", markup=False, soft_wrap=True)
    console.print(f"The hub again: moehub hub serve --root {shown.place.hub} --open", markup=False, soft_wrap=True)


def loss_table(report: Report) -> Table:
    """Return the held-out losses of base, experts and MoE on every text."""
    names = expert_names(report)
    table = _table("Held-out loss, nats per token", ["text", "base", *names, "moe", "kept"])
    for text, losses in report.losses.items():
        kept = report.gain_kept.get(text)
        table.add_row(
            text,
            f"{losses.base:.2f}",
            *(Text(f"{losses.experts[name]:.2f}", style="underline" if name == text else "") for name in names),
            Text(f"{losses.moe:.2f}", style="bold"),
            "" if kept is None else Text(f"{kept:.0f} %", style="green" if kept >= _ENOUGH else "red"),
        )
    return table


def routing_table(report: Report) -> Table:
    """Return the share of each text's tokens by expert; a shaded cell is a large share."""
    names = [*expert_names(report), NULL]
    shade = shades(report)
    table = _table("Where the tokens went, %", ["text", *names])
    for text, shares in report.routing.items():
        cells = [
            Text(f"{100 * shares[name]:.0f}", style=f"bold {shade.get(name, '')}" if shares[name] >= 0.1 else "dim")
            if name in shares
            else Text("–", style="dim")
            for name in names
        ]
        table.add_row(text, *cells)
    return table


def passage(shown: Demonstration) -> RenderableType:
    """Return the text that switches domains, each token in the colour of its expert, and a legend."""
    shade = shades(shown.report)
    present = [name for name in shade if any(token.expert == name for token in shown.passage)]
    legend = Text("A passage that changes its author: ", style="italic")
    for name in present:
        legend.append(f"{name} ", style=shade[name])
    legend.append("(null: no colour)\n")
    coloured = Text()
    for token in joined(shown.passage):
        coloured.append(token.text, style=shade.get(token.expert, ""))
    return Group(legend, coloured)


def _verdicts(report: Report) -> Text:
    least = min(report.gain_kept, key=lambda name: report.gain_kept[name])
    newcomer = list(report.gain_kept)[-1]
    moved = f"{newcomer} added in {report.add_seconds:.2f} s, taken out in {report.remove_seconds:.2f} s"
    restored = "is that" if report.hash_restored else "is NOT that"
    text = Text()
    for good, sentence in (
        (report.gain_kept[least] >= _ENOUGH, f"at least {report.gain_kept[least]:.1f} % of the gain kept ({least})"),
        (report.generic_harm <= _LITTLE, f"generic prose {report.generic_harm:+.2f} % against the base"),
        (report.hash_restored, f"{moved}: the model's hash {restored} of before"),
    ):
        text.append("✓ " if good else "✗ ", style="green" if good else "red")
        text.append(f"{sentence}\n")
    return text


def _table(title: str, columns: list[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table
