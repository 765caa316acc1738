"""One linear: what each backend adds to the base's, and how well the experts' part uses the memory."""

from functools import partial

import torch

from benchmarks.gpu import STATIC, Budget, Run, Table
from benchmarks.gpu.problem import Problem
from benchmarks.gpu.timing import Spread
from moehub.router.backends import BACKENDS, missing

_TOKENS, _SIZES, _RANK, _WIDTH = (1, 8192, 16, 512, 8), (128, 512, 1024, 4096), 16, 4096
_COPIED = 1 << 30
_DECODE = 16
"""Up to so many tokens the same is measured as a CUDA graph too: that is how decoding is served."""


def measure(run: Run, budget: Budget) -> Table:
    """Return one line for each number of tokens, E·r and routing, those that matter most first."""
    names = list(run.backends)
    width = 64 if run.small else _WIDTH
    table = Table(("tokens", "E·r", "routing", "base, µs", *names))
    copied = run.timer.bandwidth(1 << 20 if run.small else _COPIED)
    table.notes.append(f"Copying moves {copied / 1e9:.0f} GB/s. Width {width}, rank {_RANK}, top 2, bfloat16.")
    table.notes += [f"{name}: left out, needs {need.what}" for name in BACKENDS if (need := missing(name, run.device))]
    for tokens in (1, 6) if run.small else _TOKENS:
        for size in (64,) if run.small else reversed(_SIZES):
            for zipf in (False, True):
                if budget.spent():
                    table.notes.append(f"Out of time before {tokens} tokens, E·r = {size}, zipf={zipf}.")
                    return table
                given = Problem.random(
                    tokens=tokens, experts=size // _RANK, rank=_RANK, width=width, zipf=zipf,
                    dtype=torch.bfloat16, device=run.device,
                )  # fmt: skip
                lines = _lines(run, given, names, copied, "Zipf" if zipf else "uniform")
                table.rows += lines
                for line in lines:
                    run.say(" | ".join(line))
    return table


@torch.no_grad()
def _lines(run: Run, given: Problem, names: list[str], copied: float, routing: str) -> list[tuple[str, ...]]:
    """Return the line of a case, and for few tokens a second one of CUDA graphs where there are any."""
    tokens, size = len(given.x), given.A.shape[0] * given.A.shape[1]
    base, y = run.timer.time(given.base), given.base()
    cells = []
    for name in names:
        whole = run.timer.time(partial(_whole, given, name))
        alone = run.timer.time(partial(given.lora, name, y))
        share = given.least_bytes() / alone.median / copied
        cells.append(f"{whole.over(base)} · {share:.0%}")
    lines = [(f"{tokens}", f"{size}", routing, f"{base.median * 1e6:.1f}", *cells)]
    graph = _graph_line(run, given, names) if tokens <= _DECODE else None
    return lines if graph is None else [*lines, (f"{tokens}", f"{size}", f"{routing}, graph", *graph)]


def _graph_line(run: Run, given: Problem, names: list[str]) -> tuple[str, ...] | None:
    """Return the base's microseconds and the ratios as CUDA graphs, or None where there are none."""
    plain = run.timer.captured(given.base)
    if plain is None:
        return None
    base = run.timer.time(plain)
    return f"{base.median * 1e6:.1f}", *(_graph_cell(run, given, name, base) for name in names)


def _graph_cell(run: Run, given: Problem, name: str, base: Spread) -> str:
    work = run.timer.captured(partial(_whole, given, name)) if name in STATIC else None
    return "–" if work is None else run.timer.time(work).over(base)


def _whole(given: Problem, name: str) -> torch.Tensor:
    return given.lora(name, given.base())
