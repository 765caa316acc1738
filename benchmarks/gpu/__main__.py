"""What the sparse layer costs on a GPU, correctness first: one run of at most ten minutes.

    python -m benchmarks.gpu [--only PART …] [--json] [--write]
    TRITON_INTERPRET=1 python -m benchmarks.gpu --device cpu --small      # every line of it, without a GPU

Every backend that runs on the device is first compared with `loop` on the CPU in single precision, outputs and all
gradients, in single precision and bfloat16; where one is wrong, nothing is measured and the exit code is 1. Times are
medians [10th, 90th percentile] of 100 repeats after 20 warm-ups, or as many as fit into 2 seconds, between CUDA events,
with the second-level cache emptied before each. In the table of one layer a cell is: time with the experts ÷ time of
the base's linear, then the share of the copy bandwidth that the experts' part reaches alone, counting what it must
read and write once.
Parts, in order of importance: {parts}.
"""

import argparse
import dataclasses
import importlib
import json
import time
from collections.abc import Sequence

import torch

from benchmarks.gpu import Budget, Run, Table
from benchmarks.gpu.correct import faults
from benchmarks.gpu.timing import REPEATS, WARM, Timer
from benchmarks.hub import markdown, where
from benchmarks.road import keep
from moehub.console import console
from moehub.router.backends import BACKENDS, runnable

PARTS = {
    "layer": ("one linear of width 4096", 150.0),
    "model": ("a Llama of 3 billion weights", 180.0),
    "megablocks": ("MegaBlocks beside `grouped`", 40.0),
    "peers": ("PEFT with several adapters", 120.0),
}
"""Part → what it measures, and the seconds after which it begins nothing more."""
_SECONDS = 540.0
"""After so many seconds no part begins anything more, so that what was begun ends within ten minutes."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare, measure, and print one table for each part."""
    options = _options(arguments)
    begin, device = time.monotonic(), torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("torch finds no CUDA device here: --device cpu --small runs every line of this without one")
    timer = Timer(device, warm=0, repeats=2) if options.small else Timer(device, warm=WARM, repeats=REPEATS)
    backends = tuple(name for name in runnable(device) if name not in options.without)
    run = Run(device, backends, options.small, timer, lambda line: console.print(line, markup=False))
    made, wrong = faults(run)
    if wrong:
        cure = "`--without NAME` leaves a backend out"
        raise SystemExit("\n".join([f"wrong, so nothing was measured ({cure}):", *wrong]))
    run.say(f"{made} comparisons with the CPU, all within their tolerance")
    tables = {}
    for name in options.only:
        seconds = min(PARTS[name][1], begin + _SECONDS - time.monotonic())
        run.say(f"measuring: {PARTS[name][0]}")
        tables[name] = importlib.import_module(f"benchmarks.gpu.{name}").measure(run, Budget(seconds))
        if not options.json:
            _show(name, tables[name], made, write=options.write)
    if options.json:
        print(json.dumps({name: dataclasses.asdict(table) for name, table in tables.items()}, indent=2))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    described = ", ".join(f"{name} ({what})" for name, (what, _) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=(__doc__ or "").format(parts=described),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts alone")
    parser.add_argument("--without", nargs="+", choices=list(BACKENDS), default=[], help="leave these backends out")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --small")
    parser.add_argument("--small", action="store_true", help="tiny sizes: to try the script, not to measure")
    parser.add_argument("--json", action="store_true", help="print the tables as JSON")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args(arguments)
    if options.write and (options.small or options.device == "cpu"):
        parser.error("--write keeps figures of a GPU alone: leave out --small and --device cpu")
    return options


def _show(name: str, table: Table, made: int, *, write: bool) -> None:
    """Print a table as Markdown, because it is wider than a terminal, and keep it if asked to."""
    text = "\n\n".join([markdown(table.columns, table.rows), " ".join(table.notes)])
    print(text, flush=True)
    if write:
        how = f"`python -m benchmarks.gpu --only {name} --write`, after {made} comparisons with the CPU that all held."
        keep(f"On a GPU: {PARTS[name][0]}", f"{how}\n\n{where()}\n\n{text}")


if __name__ == "__main__":
    main()
