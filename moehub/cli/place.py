"""Where a long work is written: to a file that appears whole, with what was done so far beside it."""

from pathlib import Path

import click


def new(output: Path | None, *, overwrite: bool) -> Path:
    """Return the output if it can be written.

    Raises:
        click.UsageError: there is none, it is no .jsonl, or something stands there that is not to be replaced.
    """
    if output is None:
        raise click.UsageError("--output is missing: name the file to write, or say --dry-run")
    if output.suffix != ".jsonl":
        raise click.UsageError(f"--output {output} has the ending {output.suffix!r}, expected .jsonl")
    if output.exists() and not overwrite:
        raise click.UsageError(f"--output {output} exists already: name another file, or say --overwrite")
    return output


def partial(output: Path) -> Path:
    """Return the file beside the output that keeps what was done so far."""
    return output.with_name(f"{output.name}.partial")
