"""What it costs to add an expert to a MoE and to take it out again.

    python -m benchmarks.change [--experts 100] [--repeats 3]

A Llama with random weights (hidden 512, 4 layers, vocabulary 32768); every expert has LoRA rank 16 on all linears and
counts of 300,000 tokens (2^16 pair buckets), two thirds of them from words of its own. CPU seconds of this process,
everything included: reading the new expert, the admission gate, making its tables, writing the folder anew.
"""

import argparse
import platform
import statistics as stats
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.fabricated import Size, make_base, make_expert, make_null
from moehub import files
from moehub.merge.merging import Recipe, prepare, prepare_change

_SIZE = Size(vocabulary=32768, hidden=512, intermediate=1408, layers=4, heads=8)


def main() -> None:
    """Merge, then add and remove one expert some times, and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = make_base(folder / "base", _SIZE)
        pin, null = base.pin(), make_null(folder / "null", base.pin(), _SIZE)
        experts = [
            make_expert(folder / f"{number:03d}", base, pin, number, _SIZE) for number in range(chosen.experts + 1)
        ]
        recipe = Recipe(base=str(base.folder), experts=tuple(map(str, experts[:-1])), null=str(null))
        with prepare(recipe) as prepared:
            prepared.write(folder / "moe")
        digest = files.tree_digest(folder / "moe")
        added, removed = [], []
        for _ in range(chosen.repeats):
            added.append(_seconds(folder / "moe", add=[str(experts[-1])]))
            removed.append(_seconds(folder / "moe", remove=[f"expert-{experts[-1].name}"]))
        same = files.tree_digest(folder / "moe") == digest
    print(f"{platform.machine()}, 1 thread, torch {torch.__version__}; median of {chosen.repeats} [min, max]")
    print("| experts | add, CPU s | remove, CPU s | same bytes afterwards |\n|---|---|---|---|")
    cells = [f"{stats.median(one):.3f} [{min(one):.3f}, {max(one):.3f}]" for one in (added, removed)]
    print(f"| {chosen.experts} | {' | '.join(cells)} | {'yes' if same else 'NO'} |")


def _seconds(moe: Path, *, add: list[str] | None = None, remove: list[str] | None = None) -> float:
    begin = time.process_time()
    with prepare_change(moe, add=add or (), remove=remove or ()) as change:
        change.write()
    return time.process_time() - begin


if __name__ == "__main__":
    main()
