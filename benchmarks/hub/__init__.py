"""What the hub costs; each module prints a table."""

import os
from collections.abc import Sequence

from rich.table import Table

from benchmarks.federation import where as _where
from benchmarks.road import keep
from moehub.console import results


def where() -> str:
    """Return what a table was made on, for RESULTS.md, with the load that the machine carried already."""
    return f"{_where()} Load before the run: {os.getloadavg()[0]:.1f}."


def present(
    title: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[str, ...]],
    *,
    how: str,
    machine: str,
    write: bool,
    below: str = "",
) -> None:
    """Print a table and what stands `below` it; `write` puts both into RESULTS.md, with how and on what it was made."""
    shown = Table(*columns)
    for row in rows:
        shown.add_row(*row)
    results.print(shown)
    if below:
        results.print(below)
    if write:
        keep(title, "\n\n".join(filter(None, [how, machine, markdown(columns, rows), below])))


def markdown(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return rows as a table of Markdown; the first column holds words, the others numbers."""
    rule = ("---", *["---:"] * (len(columns) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *rows))
