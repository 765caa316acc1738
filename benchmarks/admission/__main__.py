"""What the admission gate refuses, what it lets through, and what that costs.

    python -m benchmarks.admission [--experts 144] [--processes 2] [--work FOLDER] [--write]

Good experts of the demo's small base are trained as anybody would: eight domains (source code, licences, arithmetic,
JSON, the prose of single packages' documentation), ranks 1 to 64, several targets, scales, rates and lengths, with
rank-stabilised scale and without, no two of the same settings. Good is who gains at least one percent on text held
out by its own training. Half of them are for choosing thresholds, the other half for saying how many are refused.

The attacks are those of tests/attacks; those on behaviour and routing begin with several good experts in turn, and
meet a gate that has all at hand: the base, public prose, text of each domain, generic counts, and one expert of every
domain to stand beside.

An interrupted run goes on where its --work folder is given again.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.admission import tables, tasks, texts
from benchmarks.admission.good import recipes
from benchmarks.admission.place import Place, fill
from benchmarks.admission.tasks import Seen, Trained, Tried
from benchmarks.road import keep
from moehub.demo.base import bf16_is_quick
from tests import attacks

_TITLE = "The admission gate"
LEAST_GAIN = 0.01
"""Share of the loss that a good expert gains on what its own training held out."""
_LEARNED = ("behaviour", "routing", "features")
"""Modules of attacks that begin with an expert that gains; for the others one of random weights will do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, look, attack, print the tables, and keep them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=144, help="to train; some gain too little to be good")
    parser.add_argument("--worlds", type=int, default=4, help="good experts that each attack on behaviour begins with")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", type=Path, help="folder to keep what was trained in")
    parser.add_argument("--write", action="store_true", help="put the tables into RESULTS.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        found = _run(options.work or Path(scratch), options)
    print(found)
    if options.write:
        keep(_TITLE, found)


def _run(folder: Path, options: argparse.Namespace) -> str:
    kept = sorted(path.stem for path in (folder / "training").glob("*.txt"))
    place = Place(folder) if kept and (folder / "null").is_dir() else fill(folder, texts.gather())
    domains = kept or sorted(path.stem for path in (folder / "training").glob("*.txt"))
    planned = recipes(domains, options.experts, dtype="bfloat16" if bf16_is_quick() else "float32")
    trained = list(tasks.each(tasks.train_one, ((place, one) for one in planned), "training", options.processes))
    good = [one for one in trained if one.gain >= LEAST_GAIN]
    first, second = _halves(good)
    beside = tuple(next(one.name for one in first if one.domain == domain) for domain in _domains(first))
    calibration, held_out = (_look(place, half, beside, options.processes) for half in (first, second))
    rescaled = list(tasks.each(tasks.look_rescaled, _items(place, good, beside), "rescaled experts", options.processes))
    tried = _attack(place, second, beside, options)
    return tables.section(trained, len(good), calibration, held_out, rescaled, tried)


def _look(place: Place, half: Sequence[Trained], beside: tuple[str, ...], processes: int) -> list[Seen]:
    return list(tasks.each(tasks.look, _items(place, half, beside), "good experts", processes))


def _items(
    place: Place, experts: Sequence[Trained], beside: tuple[str, ...]
) -> list[tuple[Place, str, str, tuple[str, ...]]]:
    return [(place, one.name, one.domain, tuple(name for name in beside if name != one.name)) for one in experts]


def _attack(place: Place, good: Sequence[Trained], beside: tuple[str, ...], options: argparse.Namespace) -> list[Tried]:
    """Try every attack; those that have to do with what was learned, on several good experts."""
    whole = [next(one for one in good if one.domain == domain and one.features) for domain in _domains(good)
             if any(one.domain == domain and one.features for one in good)]  # fmt: skip
    names = [one.name for one in sorted(whole, key=lambda one: -one.gain)]
    triples = [(names[at], names[at - 1], names[at - 2]) for at in range(min(options.worlds, len(names)))]
    learned: list[int] = []
    formal: list[int] = []
    for number, one in enumerate(attacks.registered()):
        (learned if one.make.__module__.rpartition(".")[2] in _LEARNED else formal).append(number)
    items = [(place, number, triple, beside) for number in learned for triple in triples]
    return [
        *tasks.each(tasks.attack_form, formal, "attacks on form", options.processes),
        *tasks.each(tasks.attack, items, "attacks on behaviour and routing", options.processes),
    ]


def _halves(good: Sequence[Trained]) -> tuple[list[Trained], list[Trained]]:
    """Return every second expert of each domain, and the others."""
    first: list[Trained] = []
    second: list[Trained] = []
    for domain in _domains(good):
        mine = [one for one in good if one.domain == domain]
        first += mine[::2]
        second += mine[1::2]
    return first, second


def _domains(experts: Sequence[Trained]) -> list[str]:
    return sorted({one.domain for one in experts})


if __name__ == "__main__":
    main()
