"""Merging and loading beside the disk: 64 experts of rank 16 on a base of 205 million parameters, in bfloat16.

*Merge*: writing the MoE's folder from a plan, against `cp` of the adapters with a flush of each, as moehub flushes.
The admission gate, which reads every value of every expert first, is a row of its own.
*Load*: `from_pretrained` of the MoE, against loading the base alone and reading its adapters once.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from benchmarks.engine import Row, interleaved
from benchmarks.fabricated import Size, make_base, make_expert, make_null
from moehub import base as bases
from moehub.card import ADAPTER_WEIGHTS
from moehub.console import progress
from moehub.merge.merging import Recipe, prepare

_SIZE = Size(vocabulary=8192, hidden=1024, intermediate=2816, layers=16, heads=16, dtype=torch.bfloat16)
_EXPERTS = 64


def measure(turns: int, *, experts: int = _EXPERTS, size: Size = _SIZE) -> list[Row]:
    """Return the rows of merging and of loading; seconds by the clock, files in the page cache."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = make_base(folder / "base", size)
        pin, null = base.pin(), make_null(folder / "null", base.pin(), size)
        folders = []
        with progress("making experts", experts) as advance:
            for number in range(experts):
                folders.append(make_expert(folder / f"{number:03d}", base, pin, number, size))
                advance(1)
        recipe = Recipe(base=str(base.folder), experts=tuple(map(str, folders)), null=str(null))
        return [*_merging(recipe, folders, folder, turns), *_loading(base, folders, folder / "moe", turns)]


def _merging(recipe: Recipe, experts: Sequence[Path], folder: Path, turns: int) -> list[Row]:
    begin = time.perf_counter()
    with prepare(recipe) as prepared:
        admission = time.perf_counter() - begin

        def copy() -> None:
            shutil.rmtree(folder / "copy", ignore_errors=True)
            (folder / "copy").mkdir()
            for expert in experts:
                _copy_flushed(expert / ADAPTER_WEIGHTS, folder / "copy" / expert.name)

        def merge() -> None:
            shutil.rmtree(folder / "moe", ignore_errors=True)
            prepared.write(folder / "moe")

        ratios, seconds = interleaved({"cp": copy, "merge": merge}, against="cp", turns=turns, clock=time.perf_counter)
    mebibytes = sum((expert / ADAPTER_WEIGHTS).stat().st_size for expert in experts) / 2**20
    case = f"{len(experts)} experts, {mebibytes:.0f} MiB"
    each = f"{1000 * admission / len(experts):.0f} ms an expert"
    return [
        Row("merge: write", case, str(ratios["merge"]), "≤ 1.2 × cp", f"cp {seconds:.2f} s"),
        Row("merge: admission before it", case, f"{admission:.2f} s", "", each),
    ]


def _copy_flushed(source: Path, destination: Path) -> None:
    shutil.copyfile(source, destination)
    descriptor = os.open(destination, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _loading(base: bases.Base, experts: Sequence[Path], moe: Path, turns: int) -> list[Row]:
    def alone() -> None:
        with bases.quiet_transformers():
            base.load_model()
        for expert in experts:
            (expert / ADAPTER_WEIGHTS).read_bytes()

    def whole() -> None:
        with bases.quiet_transformers():
            AutoModelForCausalLM.from_pretrained(moe)

    ratios, seconds = interleaved({"base": alone, "moe": whole}, against="base", turns=turns, clock=time.perf_counter)
    what = f"base and reading {seconds:.2f} s"
    return [Row("load", f"{len(experts)} experts", str(ratios["moe"]), "≤ 1.2", what)]
