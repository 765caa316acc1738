"""What the engine costs: every goal's row, measured side by side with the plain base, `cp` and the peers.

    python -m benchmarks.engine [--only PART …] [--json] [--write]
    python -m benchmarks.engine --device cuda [--json] [--write]        what `benchmarks.gpu` measures

Parts: {parts}.
"""

import argparse
import dataclasses
import importlib
import json
from collections.abc import Sequence

from benchmarks.engine import Row
from benchmarks.gpu import __main__ as gpu
from benchmarks.hub import present, where
from moehub.console import console

PARTS: dict[str, str] = {
    "forward": "prefill and decoding",
    "peers": "beside PEFT",
    "mixture": "training through the MoE",
    "memory": "memory",
    "assembly": "merging and loading",
    "export": "exporting",
    "training": "training one expert",
}
"""Part → what it measures; `benchmarks.engine.PART` has `measure(turns) -> list[Row]`."""
_COLUMNS = ("work", "case", "measured", "goal", "others, same run")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts and print one table for each."""
    described = ", ".join(f"{name} ({what})" for name, what in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine",
        description=(__doc__ or "").format(parts=described),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), help="these parts alone")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="cuda: run benchmarks.gpu")
    parser.add_argument("--turns", type=int, default=5, help="how often each work is measured")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args(arguments)
    if options.device == "cuda":
        gpu.main([flag for flag, given in (("--json", options.json), ("--write", options.write)) if given])
        return
    machine, found = where(), dict[str, list[Row]]()
    for name in options.only:
        console.print(f"measuring: {PARTS[name]}", markup=False)
        part = importlib.import_module(f"benchmarks.engine.{name}")
        found[name] = part.measure(options.turns)
        if not options.json:
            lines = [(row.work, row.case, row.figure, row.goal, row.others) for row in found[name]]
            command = f"`python -m benchmarks.engine --only {name} --turns {options.turns} --write`"
            how = f"{command}. {str(part.__doc__).strip()}"
            present(f"The engine: {PARTS[name]}", _COLUMNS, lines, how=how, machine=machine, write=options.write)
    if options.json:
        print(json.dumps({name: [dataclasses.asdict(row) for row in rows] for name, rows in found.items()}, indent=2))


if __name__ == "__main__":
    main()
