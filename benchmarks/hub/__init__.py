"""What the hub costs; each module prints a table."""

import os

from benchmarks.federation import where as _where


def where() -> str:
    """Return what a table was made on, for RESULTS.md, with the load that the machine carried already."""
    return f"{_where()} Load before the run: {os.getloadavg()[0]:.1f}."


def table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return rows as a table of Markdown; the first column holds words, the others numbers."""
    rule = ("---", *["---:"] * (len(columns) - 1))
    return "\n".join(f"| {' | '.join(line)} |" for line in (columns, rule, *rows))
