"""What a person sees: one rich console on standard error, and progress that is plain lines off a terminal.

Standard output belongs to results (`--json`, generated text); everything else goes through `console`.
"""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True, highlight=False)
results = Console(highlight=False)
"""For tables on standard output: 80 columns wide where it is no terminal."""

Advance = Callable[..., None]
"""Called as `advance(steps=1, note="")` whenever work was done; `note` is shown beside the bar."""

_PLAIN_SECONDS = 5.0


@contextlib.contextmanager
def progress(description: str, total: int, *, in_bytes: bool = False) -> Iterator[Advance]:
    """Yield a function that advances a progress bar of `total` steps, or of `total` bytes.

    On a terminal this is a rich bar; elsewhere a line at the start, every five seconds, and at the end.
    """
    if console.is_terminal:
        with _bar(DownloadColumn() if in_bytes else MofNCompleteColumn()) as bar:
            task = bar.add_task(description, total=total, note="")

            def advance(steps: int = 1, note: str = "") -> None:
                bar.update(task, advance=steps, note=note)

            yield advance
        return
    with _lines(description, total, " bytes" if in_bytes else "") as advance_lines:
        yield advance_lines


def _bar(count: ProgressColumn) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        count,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


@contextlib.contextmanager
def _lines(description: str, total: int, unit: str) -> Iterator[Advance]:
    done, started = 0, time.monotonic()
    said = started
    console.print(f"{description}: 0/{total}{unit}", markup=False)

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, said
        done += steps
        if time.monotonic() - said >= _PLAIN_SECONDS:
            said = time.monotonic()
            console.print(f"{description}: {done}/{total}{unit} {note}".rstrip(), markup=False)

    yield advance
    console.print(f"{description}: {done}/{total}{unit} in {time.monotonic() - started:.1f} s", markup=False)
