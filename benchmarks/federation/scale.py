"""The server's memory and seconds with many contributors.

    python -m benchmarks.federation scale [--contributors 10 100 1000] [--aggregations ffa product] [--write]

The contributors are functions in the server's own process, behind the grid of the tests: messages and replies go
through Flower's serialisation, but through no SuperLink, and a reply is made when it is fetched. Each row is a process
of its own, without torch, that runs two rounds and ends before publication; the second round is the one that counts.
What is measured is the most memory that process ever held, contributors' one reply at a time included.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.federation import where
from benchmarks.road import keep
from moehub.card import BasePin
from moehub.console import console, progress, results
from moehub.experts.settings import TrainConfig
from moehub.federation.aggregation import Aggregate, Update, aggregate
from moehub.federation.form import Form
from moehub.federation.server.run import run
from moehub.federation.settings import FederationConfig
from moehub.federation.weights import Weights, initial, size, trained
from tests.federation.grid import FakeNode, LocalGrid

WIDTH, LINEARS, RANK = 1024, 16, 16
FORM = Form(
    base=BasePin(reference="none", digest="0" * 64, tokenizer="0" * 64),
    vocabulary=32_000,
    targets=("q_proj",),
    linears={f"base_model.model.layers.{number}.q_proj": [WIDTH, WIDTH] for number in range(LINEARS)},
)
_MIB = 1 << 20
_COLUMNS = (
    "aggregation",
    "contributors",
    "update, MiB",
    "all updates, MiB",
    "peak memory, MiB",
    "s a round",
    "ms each",
)
_ONE = "--one"


class _Enough(BaseException):
    """Ends a run after its last round."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table; `--write` puts it into RESULTS.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contributors", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--aggregations", nargs="+", default=["ffa", "product"])
    parser.add_argument("--write", action="store_true", help="put the table into RESULTS.md")
    parser.add_argument(_ONE, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        results.print_json(json.dumps(measure(options.contributors[0], options.aggregations[0])))
        return
    pairs = [(name, count) for name in options.aggregations for count in options.contributors]
    rows = []
    with progress("measuring", len(pairs)) as advance:
        for name, count in pairs:
            rows.append(_row(_apart(count, name)))
            advance(1, f"{count} contributors, {name}")
    table = Table(*_COLUMNS)
    for row in rows:
        table.add_row(*row)
    results.print(table)
    if options.write:
        lines = [_COLUMNS, ["---"] * 2 + ["---:"] * 5, *rows]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        keep("The federation's server with many contributors", f"{_how()}\n\n{where()}\n\n{text}")


def measure(contributors: int, aggregation: Any) -> dict[str, Any]:
    """Run two rounds in this process and return what they cost."""
    config = FederationConfig(
        base="none",
        rounds=2,
        steps=1,
        aggregation=aggregation,
        train=TrainConfig(rank=RANK, context_length=1024),
    )
    ends: list[float] = []

    def watched(settings: FederationConfig, start: Weights, updates: Sequence[Update], **options: Any) -> Aggregate:
        found = aggregate(settings, start, updates, **options)
        ends.append(time.perf_counter())
        if len(ends) == config.rounds:
            raise _Enough
        return found

    grid = LocalGrid({1000 + seed: FakeNode(FORM, seed) for seed in range(1, contributors + 1)})
    console.quiet = True
    with tempfile.TemporaryDirectory() as folder:
        try:
            run(grid, config, FORM, Path(folder), resume=False, expected=contributors, aggregation=watched)
        except _Enough:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    update = size(trained(initial(FORM.shapes(RANK), 0), frozen_a=config.frozen_a))
    return {
        "aggregation": aggregation,
        "contributors": contributors,
        "update": update,
        "peak": peak,
        "seconds": ends[1] - ends[0],
        "torch": "torch" in sys.modules,
    }


def _apart(contributors: int, aggregation: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.federation", "scale", _ONE]
    command += ["--contributors", str(contributors), "--aggregations", aggregation]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)  # noqa: S603 (our own command)
    found: dict[str, Any] = json.loads(done.stdout)
    if found["torch"]:
        raise SystemExit("the server imported torch during its rounds, expected it not to: find out who did")
    return found


def _row(found: dict[str, Any]) -> list[str]:
    contributors, update = found["contributors"], found["update"] / _MIB
    return [
        found["aggregation"],
        str(contributors),
        f"{update:.1f}",
        f"{update * contributors:.0f}",
        f"{found['peak'] / _MIB:.0f}",
        f"{found['seconds']:.1f}",
        f"{found['seconds'] / contributors * 1000:.0f}",
    ]


def _how() -> str:
    return (
        f"`python -m benchmarks.federation scale --write`: an in-process grid (no SuperLink, no simulation), {LINEARS} "
        f"linears of {WIDTH} × {WIDTH} at rank {RANK}, contributors as functions in the server's process. Two rounds; "
        "seconds are those of the second and include what the contributors' functions take. Memory is the most that "
        "the process ever held."
    )


if __name__ == "__main__":
    main()
