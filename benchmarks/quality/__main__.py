"""Every way to combine experts, on the same experts: tuned on one text, reported on another.

    python -m benchmarks.quality --data DIR [--method NAME …] [--seeds 0,1,2] [--write]
    python -m benchmarks.quality --base org/name --data DIR
    python -m benchmarks.quality adding            what one more expert does to the others
    python -m benchmarks.quality many              the gate with 32 and 128 contributors
    python -m benchmarks.quality --full            all of it

DIR holds NAME.train.jsonl and NAME.test.jsonl (or .txt): domains to add to those that this machine's own text makes.
What was trained and measured is kept in --work, so a run that was interrupted goes on.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub.constants import HF_HOME

from benchmarks.quality import adding, many, tables
from benchmarks.quality.method import Method, registered
from benchmarks.quality.score import Sums, sums
from benchmarks.quality.setup import Setup, small
from benchmarks.quality.world import World, build
from moehub import files
from moehub.console import console, progress

_MORE = {"adding": adding.measure, "many": many.measure}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what was not measured yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("methods", *_MORE), default="methods")
    parser.add_argument("--full", action="store_true", help="every part")
    parser.add_argument("--base", help="a base by folder or org/name; without it, one is trained")
    parser.add_argument("--data", type=Path, help="a folder of domains")
    parser.add_argument("--work", type=Path, default=Path(HF_HOME) / "moehub" / "quality", help="what is kept")
    parser.add_argument("--method", action="append", help="one of them; repeat it")
    parser.add_argument("--again", action="store_true", help="measure the named methods again")
    parser.add_argument("--seeds", help="as 0,1,2")
    parser.add_argument("--small", action="store_true", help="a size that takes seconds and says nothing")
    parser.add_argument("--write", action="store_true", help="put table and plot into RESULTS.md")
    options = parser.parse_args(arguments)
    setup = small() if options.small else Setup()
    if options.seeds:
        setup = dataclasses.replace(setup, seeds=tuple(int(seed) for seed in options.seeds.split(",")))
    worlds = build(options.work, options.data, setup, base=options.base)
    for part, measure in _MORE.items():
        if options.full or options.part == part:
            measure(worlds[0], write=options.write)
    if options.part != "methods":
        return
    methods = registered()
    for name in options.method or methods:
        for world in worlds:
            _measure(world, methods[name], again=options.again)
    tables.show([_results(world) for world in worlds], worlds[0], write=options.write)


def _measure(world: World, method: Method, *, again: bool) -> None:
    file = _file(world, method.name)
    if (file.is_file() and not again) or world.seed not in (method.seeds or (world.seed,)):
        return
    started = time.monotonic()
    entrant = method.make(world)
    made = time.monotonic() - started
    texts = world.test
    found: dict[str, Sums] = {}
    started = time.monotonic()
    with progress(f"{method.name}, seed {world.seed}", len(texts)) as advance:
        for name, held in texts.items():
            found[name] = sums(held, entrant.answer(held))
            advance(1, name)
    result = {
        "needs": method.needs,
        "alone": method.alone,
        "bytes": entrant.bytes,
        "note": entrant.note,
        "seconds": made / len(world.names),
        "answering": time.monotonic() - started,
        "texts": {name: dataclasses.asdict(one) for name, one in found.items()},
    }
    files.write_text(file, json.dumps(result))
    console.print(f"{method.name}, seed {world.seed}: made in {made:.0f} s. {entrant.note}", markup=False)


def _results(world: World) -> dict[str, tables.Result]:
    found = {}
    for name in registered():
        file = _file(world, name)
        if file.is_file():
            values = json.loads(file.read_text(encoding="utf-8"))
            values["texts"] = {text: Sums(**one) for text, one in values["texts"].items()}
            found[name] = tables.Result(**values)
    return found


def _file(world: World, method: str) -> Path:
    return world.folder / f"seed-{world.seed}" / "results" / f"{method.replace(' ', '-').replace('/', '-')}.json"


if __name__ == "__main__":
    main()
