"""MegaBlocks beside torch's grouped multiplication: experts of low rank, and dense experts."""

from functools import partial

import torch

from benchmarks.gpu import Budget, Run, Table
from benchmarks.gpu.problem import Problem
from moehub.router.backends import missing
from moehub.router.backends.grouped import grouped_mm
from moehub.router.route import Route

_CASES = ((16, 64), (512, 64), (8192, 64), (8192, 256))
"""Tokens and experts of rank 16."""
_DENSE = (8, 4096, 1408)
"""Dense experts, hidden size, inner size."""


@torch.no_grad()
def measure(run: Run, budget: Budget) -> Table:
    """Return how many times the seconds of `grouped` MegaBlocks takes."""
    table = Table(("work", "tokens", "experts", "grouped, µs", "megablocks / grouped"))
    need = missing("megablocks", run.device)
    if need is not None:
        table.notes.append(f"Left out, needs {need.what}: {need.cure}.")
        return table
    if not {"megablocks", "grouped"} <= set(run.backends):
        table.notes.append("Left out with one of the two backends.")
        return table
    from moehub.router.backends.megablocks.library import load

    table.notes.append(f"{load().source}.")
    for tokens, experts in ((5, 3),) if run.small else _CASES:
        if budget.spent():
            table.notes.append(f"Out of time before {tokens} tokens.")
            return table
        given = Problem.random(
            tokens=tokens, experts=experts, rank=16, width=64 if run.small else 4096, zipf=False,
            dtype=torch.bfloat16, device=run.device,
        )  # fmt: skip
        y = given.base()
        ours, theirs = (run.timer.time(partial(given.lora, name, y)) for name in ("grouped", "megablocks"))
        table.rows.append(("rank 16", f"{tokens}", f"{experts}", f"{ours.median * 1e6:.1f}", theirs.over(ours)))
        run.say(" | ".join(table.rows[-1]))
    for tokens in (6,) if run.small else (512, 8192):
        table.rows.append(_dense(run, tokens))
        run.say(" | ".join(table.rows[-1]))
    return table


def _dense(run: Run, tokens: int) -> tuple[str, ...]:
    """Return the line of MegaBlocks' dMoE over dense experts, beside the same out of torch's grouped multiplication."""
    from moehub.router.backends.megablocks.dense_experts import DenseExperts, SwiGLU

    experts, hidden, inside = (4, 64, 48) if run.small else _DENSE
    generator = torch.Generator(run.device).manual_seed(3)

    def normal(*shape: int) -> torch.Tensor:
        values = torch.randn(*shape, generator=generator, device=run.device)
        return (values / shape[-1] ** 0.5).to(torch.bfloat16)

    w1, v1, w2 = normal(experts, inside, hidden), normal(experts, inside, hidden), normal(experts, hidden, inside)
    layer = DenseExperts([SwiGLU(*one) for one in zip(w1, v1, w2, strict=True)], top_k=2)
    indices = torch.rand(tokens, experts, generator=generator, device=run.device).topk(2).indices
    route, x = Route(indices, torch.full_like(indices, 0.5, dtype=torch.float32), experts), normal(tokens, hidden)

    def grouped() -> torch.Tensor:
        rows = x[route.tokens]
        up = torch.nn.functional.silu(grouped_mm(rows, w1.transpose(1, 2), route.offsets))
        up = up * grouped_mm(rows, v1.transpose(1, 2), route.offsets)
        out = grouped_mm(up, w2.transpose(1, 2), route.offsets)
        return torch.zeros_like(x).index_add(0, route.tokens, out * route.sorted_weights[:, None].to(out.dtype))

    ours, theirs = run.timer.time(grouped), run.timer.time(partial(layer, x, route))
    return "dense SwiGLU", f"{tokens}", f"{experts}", f"{ours.median * 1e6:.1f}", theirs.over(ours)
